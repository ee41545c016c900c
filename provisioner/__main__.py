"""Runs the provisioner: `python -m provisioner`, configured by the environment."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import yaml
from prometheus_client import CollectorRegistry, start_http_server
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool

from catalogue.loader import CatalogueError, load_catalogue
from provisioner.catch_up import CatchUp
from provisioner.clients.helm import Charts
from provisioner.clients.kubernetes import KubernetesClient
from provisioner.clients.stripe import StripeClient
from provisioner.contract.errors import PermanentError
from provisioner.contract.logs import configure_logs
from provisioner.contract.queue import Kind
from provisioner.contract.settings import SettingsError, load_settings
from provisioner.emails import alert_operator
from provisioner.instances import InstanceHandler
from provisioner.mailer import Correspondence, EmailHandler, MailServer
from provisioner.metrics import WorkerMetrics
from provisioner.reviews import ChargeHandler
from provisioner.scheduler import Scheduler
from provisioner.secrets import RootKey
from provisioner.settings import Settings
from provisioner.settlement import Offer
from provisioner.subscriptions import SubscriptionHandler
from provisioner.sweep import Sweep
from provisioner.values import PlatformSettings
from provisioner.watch import WatchCache
from provisioner.workers import Handler, WorkerOptions, Workers
from provisioner.workqueue import WorkQueue

Pool = AsyncConnectionPool[AsyncConnection[Any]]

HOST = "127.0.0.1"
POOL_WAIT = 5.0
STATEMENT_MILLISECONDS = 15_000


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit status."""
    try:
        settings = load_settings(Settings)
        configure_logs(settings.log_format, tracebacks=True)
        asyncio.run(run(settings))
    except (SettingsError, CatalogueError, PermanentError) as error:
        sys.stderr.write(f"provisioner: {error}\n")
        return 2
    return 0


async def run(settings: Settings) -> None:
    """Build everything, work until told to stop, and leave nothing leased."""
    stop = _stop_on_signals()
    registry = CollectorRegistry()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_metrics_server(settings, registry))
        pool = await stack.enter_async_context(_pool(settings))
        source = await stack.enter_async_context(
            StripeClient(settings.stripe_api_key.get_secret_value(), settings.stripe_api_url)
        )
        cluster = await stack.enter_async_context(KubernetesClient.connect(settings.kubeconfig))
        cache = WatchCache(cluster, pool)
        workers = Workers(
            WorkQueue(
                pool,
                f"{socket.gethostname()}:{os.getpid()}",
                settings.lease,
                alert_operator if settings.operator_email else None,
            ),
            settings.database_url.get_secret_value(),
            _handlers(settings, pool, source, cluster, cache),
            WorkerOptions(concurrency=settings.workers),
            WorkerMetrics(registry),
        )
        load = partial(load_catalogue, settings.catalogue_dir)
        scheduler = Scheduler(pool, CatchUp(pool, source), Sweep(pool, source, load))
        async with _beside(cache.run(), scheduler.run()):
            await workers.run(stop)
    structlog.get_logger("provisioner").info("stopped")


def _handlers(
    settings: Settings, pool: Pool, source: StripeClient, cluster: KubernetesClient, cache: WatchCache
) -> Mapping[Kind, Handler]:
    charts = settings.charts
    subscriptions = SubscriptionHandler(
        source,
        partial(load_catalogue, settings.catalogue_dir),
        Offer(settings.apps_url, chart_versions(charts)),
    )
    platform = PlatformSettings(
        apps_url=settings.apps_url,
        ingress_class=settings.ingress_class,
        storage_class=settings.storage_class,
        node_selector=settings.tenant_node_selector,
        tolerations=tuple(settings.tenant_tolerations),
    )
    instances = InstanceHandler(
        pool=pool,
        cache=cache,
        client=cluster,
        charts=Charts(charts),
        platform=platform,
        root=_root_key(settings),
    )
    emails = EmailHandler(
        pool,
        MailServer.from_url(settings.smtp_url.get_secret_value()),
        Correspondence(settings.mail_from, settings.api_url, settings.operator_email),
    )
    return {
        Kind.CHARGE: ChargeHandler(source).handle,
        Kind.SUBSCRIPTION: subscriptions.handle,
        Kind.INSTANCE: instances.handle,
        Kind.EMAIL: emails.handle,
    }


def chart_versions(folder: Path) -> Mapping[str, str]:
    """The charts in `folder` by name, each with the version its Chart.yaml says."""
    found = {}
    for file in sorted(folder.glob("*/Chart.yaml")):
        chart = yaml.safe_load(file.read_text(encoding="utf-8"))
        found[str(chart["name"])] = str(chart["version"])
    if not found:
        raise SettingsError(f"{folder} holds no chart: set BERTH_CHARTS_DIR to a folder of charts")
    return found


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _pool(settings: Settings) -> Pool:
    """A pool whose opening waits for no database, and whose connections cannot hang."""
    url = make_conninfo(
        settings.database_url.get_secret_value(),
        application_name="berth-provisioner",
        connect_timeout=3,
        tcp_user_timeout=5000,
        options=f"-c statement_timeout={STATEMENT_MILLISECONDS} -c lock_timeout={STATEMENT_MILLISECONDS}"
        f" -c idle_in_transaction_session_timeout={STATEMENT_MILLISECONDS} -c timezone=UTC",
    )
    return AsyncConnectionPool(
        url,
        min_size=2,
        max_size=2 * settings.workers + 4,
        timeout=POOL_WAIT,
        max_waiting=1000,
        reconnect_timeout=2.0,
        name="provisioner",
        open=False,
    )


@contextlib.contextmanager
def _metrics_server(settings: Settings, registry: CollectorRegistry) -> Iterator[None]:
    port = settings.provisioner_metrics_port
    try:
        server, thread = start_http_server(port, HOST, registry)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on port {port} ({error.strerror}): stop what uses it or set"
            " BERTH_PROVISIONER_METRICS_PORT to another"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextlib.asynccontextmanager
async def _beside(*background: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines beside the body; they end with it, and it with them if one fails."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each) for each in background]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


def _root_key(settings: Settings) -> RootKey:
    try:
        return RootKey(settings.root_key.get_secret_value().encode())
    except ValueError as error:
        raise SettingsError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
