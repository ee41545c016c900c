"""Berth's own two services and the stand-ins they talk to, as processes on this machine."""

import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from stripe import HTTPXClient, StripeClient

from catalogue.loader import load_catalogue
from sandbox.processes import Daemon
from scripts.demo.ports import Ports
from scripts.stripe_catalogue.account import Account
from scripts.stripe_catalogue.push import push
from scripts.stripe_catalogue.webhook import ensure_webhook

STRIPE_KEY = "sk_test_berth_sandbox"
START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Outside:
    """What the services find when they start: the cluster and the database."""

    database_url: str
    kubeconfig: Path
    apps_url: str
    ingress_class: str
    storage_class: str


@dataclass(frozen=True, slots=True)
class Services:
    """The processes of one Berth: stand-ins first, then platform_api and the provisioner.

    Attributes:
        folder: holds logs, pid files, secrets and the stand-ins' state.
        extra: settings a test or a bench adds to both services.
    """

    folder: Path
    ports: Ports
    outside: Outside
    extra: Mapping[str, str]

    @property
    def api_url(self) -> str:
        """Where platform_api answers."""
        return f"http://127.0.0.1:{self.ports.api}"

    @property
    def stripe_url(self) -> str:
        """Where the Stripe stand-in answers."""
        return f"http://127.0.0.1:{self.ports.stripe}"

    @property
    def mailbox_url(self) -> str:
        """Where the mailbox shows what was sent."""
        return f"http://127.0.0.1:{self.ports.mailbox}"

    @property
    def webhook_secret_file(self) -> Path:
        """Holds the signing secret of Stripe's deliveries."""
        return self.folder / "secrets" / "webhook"

    def environment(self) -> dict[str, str]:
        """Return the settings of both services; secrets are named by file."""
        ports, secret = self.ports, self.folder / "secrets"
        return {
            "BERTH_DATABASE_URL_FILE": str(secret / "database-url"),
            "BERTH_STRIPE_API_URL": self.stripe_url,
            "BERTH_STRIPE_API_KEY_FILE": str(secret / "stripe-key"),
            "BERTH_WEBHOOK_SECRET_FILE": str(self.webhook_secret_file),
            "BERTH_ROOT_KEY_FILE": str(secret / "root-key"),
            "BERTH_API_URL": self.api_url,
            "BERTH_APPS_URL": self.outside.apps_url,
            "BERTH_KUBECONFIG": str(self.outside.kubeconfig),
            "BERTH_INGRESS_CLASS": self.outside.ingress_class,
            "BERTH_STORAGE_CLASS": self.outside.storage_class,
            "BERTH_API_PORT": str(ports.api),
            "BERTH_API_METRICS_PORT": str(ports.api_metrics),
            "BERTH_PROVISIONER_METRICS_PORT": str(ports.provisioner_metrics),
            "BERTH_SMTP_URL": f"smtp://127.0.0.1:{ports.smtp}",
            "BERTH_MAIL_FROM": "Berth <berth@localhost>",
            "BERTH_OPERATOR_EMAIL": "operator@localhost",
            **self.extra,
        }

    @property
    def stripe_api(self) -> Daemon:
        """The Stripe stand-in."""
        state = self.folder / "stripe.sqlite"
        return self._python("stripe_api", "sandbox.stripe_api", "--port", self.ports.stripe, "--state", state)

    @property
    def mailbox(self) -> Daemon:
        """The mailbox."""
        ports = ("--smtp-port", self.ports.smtp, "--http-port", self.ports.mailbox)
        return self._python("mailbox", "sandbox.mailbox", *ports)

    @property
    def platform_api(self) -> Daemon:
        """Berth's API."""
        return self._python("platform_api", "platform_api")

    def provisioner(self, number: int = 1) -> Daemon:
        """One of Berth's provisioners; several share the queue, only the first has the metrics port."""
        own = {} if number == 1 else {"BERTH_PROVISIONER_METRICS_PORT": "0"}
        return self._python(f"provisioner-{number}", "provisioner", **own)

    def all(self) -> list[Daemon]:
        """Every process, in the order of their start."""
        return [self.stripe_api, self.mailbox, self.platform_api, self.provisioner()]

    def write_secrets(self) -> None:
        """Write the secrets that are missing, each to a private file of its own."""
        folder = self.folder / "secrets"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = {"stripe-key": STRIPE_KEY, "root-key": secrets.token_urlsafe(48)}
        for name, value in made.items():
            if not (folder / name).exists():
                write_private(folder / name, value)
        write_private(folder / "database-url", self.outside.database_url)

    async def start_stand_ins(self) -> None:
        """Start Stripe and the mailbox, and set the Stripe account up as an operator would."""
        self.write_secrets()
        for daemon, url in ((self.stripe_api, self.stripe_url), (self.mailbox, self.mailbox_url)):
            daemon.start()
            await daemon.wait_ready(partial(answers, url), START_SECONDS)
        hook, file = f"{self.api_url}/webhooks/stripe", self.webhook_secret_file
        async with stripe_client(self.stripe_url) as client:
            await push(Account(client), load_catalogue())
            secret = await ensure_webhook(client, hook, secret_known=file.exists())
        if secret is not None:
            write_private(file, secret)

    async def start(self) -> None:
        """Start the stand-ins, then both services, and wait until each is ready."""
        await self.start_all_but_provisioner()
        await self.start_provisioner()

    async def start_all_but_provisioner(self) -> None:
        """Start the stand-ins and platform_api: payments are taken, and work waits in the queue."""
        await self.start_stand_ins()
        api = self.platform_api
        api.start()
        await api.wait_ready(partial(answers, f"{self.api_url}/readyz"), START_SECONDS)

    async def start_provisioner(self) -> None:
        """Start the provisioner and wait until it is up."""
        provisioner = self.provisioner()
        provisioner.start()
        metrics = f"http://127.0.0.1:{self.ports.provisioner_metrics}/metrics"
        await provisioner.wait_ready(partial(answers, metrics), START_SECONDS)

    async def stop(self) -> None:
        """Stop every process, last started first."""
        for daemon in reversed(self.all()):
            await daemon.stop()

    def _python(self, name: str, module: str, *arguments: object, **own: str) -> Daemon:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        environment = self.environment() | own
        return Daemon(name, command, self.folder, environment, working_directory=self.folder)


@asynccontextmanager
async def stripe_client(url: str) -> AsyncIterator[StripeClient]:
    """Open the official client, pointed at the stand-in."""
    http = HTTPXClient(timeout=10.0)
    try:
        yield StripeClient(STRIPE_KEY, base_addresses={"api": url}, http_client=http)
    finally:
        await http.close_async()  # type: ignore[no-untyped-call]  # the library leaves it untyped


async def answers(url: str) -> bool:
    """Say whether something answers `url` without a server error."""
    async with httpx.AsyncClient(timeout=2.0) as client:
        try:
            return not (await client.get(url)).is_server_error
        except httpx.HTTPError:
            return False


def write_private(file: Path, text: str) -> None:
    """Write `text` to `file`, readable by its owner only from the first byte on."""
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8")
