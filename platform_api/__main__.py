"""Runs platform_api: `python -m platform_api`, configured by the environment."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Iterator

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI
from prometheus_client import start_http_server

from catalogue.loader import CatalogueError, load_catalogue
from platform_api.app import make_app
from platform_api.database import make_pool
from platform_api.metrics import Metrics, make_metrics
from platform_api.settings import Settings
from platform_api.stripe_gateway import StripeGateway, open_client
from provisioner.contract.logs import configure_logs
from provisioner.contract.settings import SettingsError, load_settings

_HOST = "127.0.0.1"
_BACKLOG = 1024
_SHUTDOWN_TIMEOUT = 15  # seconds for requests under way


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    try:
        settings = load_settings(Settings)
        configure_logs(settings.log_format, tracebacks=False)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except (SettingsError, CatalogueError) as error:
        print(f"platform_api: {error}", file=sys.stderr)  # noqa: T201  # before or instead of any log
        return 2
    return 0


async def _serve(settings: Settings) -> None:
    # uvicorn raises the signal again once it has shut down; the handler it then finds must let us close.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    log = structlog.stdlib.get_logger("platform_api")
    catalogue = load_catalogue(settings.catalogue_dir)
    metrics = make_metrics()
    async with (
        open_client(settings.stripe_api_key.get_secret_value(), settings.stripe_api_url) as client,
        make_pool(settings.database_url.get_secret_value()) as pool,
    ):
        app = make_app(settings, pool, catalogue, StripeGateway(client, log), metrics)
        # All that is made by now stays: looking through it again and again held requests up for 0.1 s.
        gc.collect()
        gc.freeze()
        with _listener(settings.api_port) as listener, _metrics_server(settings, metrics):
            log.info("serving", port=listener.getsockname()[1])
            await uvicorn.Server(_server_config(app)).serve(sockets=[listener])
    log.info("stopped")


def _server_config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT,
    )


def _listener(port: int) -> socket.socket:
    try:
        return socket.create_server((_HOST, port), backlog=_BACKLOG)
    except OSError as error:
        raise _port_error(port, "BERTH_API_PORT", error) from error


@contextlib.contextmanager
def _metrics_server(settings: Settings, metrics: Metrics) -> Iterator[None]:
    port = settings.api_metrics_port
    try:
        server, thread = start_http_server(port, _HOST, metrics.registry)
    except OSError as error:
        raise _port_error(port, "BERTH_API_METRICS_PORT", error) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _port_error(port: int, setting: str, error: OSError) -> SettingsError:
    return SettingsError(
        f"cannot listen on port {port} ({error.strerror}): stop what uses it or set {setting} to another"
    )


if __name__ == "__main__":
    sys.exit(main())
