"""The demo's main job: three customers buy, and each gets a running instance of their own."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table

from provisioner.clients.kubernetes import KINDS, KubernetesClient
from scripts.berth.output import CommandError
from scripts.demo import customers
from scripts.demo.customers import BUYERS, Account, Accounts, Buyer
from scripts.demo.loopback import LoopbackTransport
from scripts.demo.timeline import Timeline, load_timeline
from scripts.demo.view import Journey, JourneyScreen

READY_SECONDS = 180.0
ANSWER_SECONDS = 30.0
RESTART_SECONDS = 60.0
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Story:
    """What the story needs to know of the stack it plays on."""

    api_url: str
    apps_url: str
    database_url: str
    kubeconfig: Path
    simulated: bool
    accounts: Accounts


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one customer ended up with."""

    account: Account
    instance: dict[str, object]
    url: str
    timeline: Timeline
    kept_note: bool | None


async def play(story: Story, console: Console) -> list[Outcome]:
    """Let all buyers buy at once, show it live, and return what each got."""
    journeys = [Journey(buyer) for buyer in BUYERS]
    screen = JourneyScreen(journeys)
    with Live(screen, console=console, refresh_per_second=8, transient=not console.is_terminal):
        async with httpx.AsyncClient(base_url=story.api_url, timeout=customers.TIMEOUT) as api:
            return await asyncio.gather(*(_live(story, api, journey) for journey in journeys))


async def _live(story: Story, api: httpx.AsyncClient, journey: Journey) -> Outcome:
    account = await _buy(story, api, journey)
    instance = await _until_ready(api, account, journey)
    url = story.apps_url.replace("{slug}", str(instance["slug"]))
    kept = None if story.simulated else await _use(story, journey, instance, url)
    journey.done = True
    journey.note = url
    timeline = await load_timeline(story.database_url, str(instance["id"]), account.paid_at)
    return Outcome(account, instance, url, timeline, kept)


async def _buy(story: Story, api: httpx.AsyncClient, journey: Journey) -> Account:
    account = story.accounts.get(journey.buyer)
    if account is None:
        journey.reach("sign-up")
        account = await customers.sign_up(api, journey.buyer)
        story.accounts.save(account)
    if account.paid_at is None:
        journey.reach("checkout")
        account = await customers.buy(api, account)
        story.accounts.save(account)
        journey.reach("paid")
    return account


async def _until_ready(api: httpx.AsyncClient, account: Account, journey: Journey) -> dict[str, object]:
    try:
        async with asyncio.timeout(READY_SECONDS):
            while True:
                for instance in await customers.instances(api, account):
                    journey.reach(str(instance["phase"]))
                    journey.note = _current_condition(instance)
                    if instance["phase"] == "ready":
                        return instance
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise CommandError(
            f"{account.buyer.name}'s instance was not ready within {READY_SECONDS:.0f} s: {journey.note}",
            f"see why with: berth instances show {account.buyer.slug}, and berth queue list",
        ) from None


def _current_condition(instance: dict[str, object]) -> str:
    conditions = instance.get("conditions")
    if not isinstance(conditions, list):
        return ""
    waiting = [c["message"] for c in conditions if c["status"] is not True and c["message"]]
    return str(waiting[0]) if waiting else ""


async def _use(story: Story, journey: Journey, instance: dict[str, object], url: str) -> bool:
    """Open the instance, check that it is the buyer's own, and that a note outlives a restart."""
    transport = LoopbackTransport()
    async with httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(5.0)) as web:
        journey.note = "opening its address"
        info = await customers.wait_for_info(web, url, ANSWER_SECONDS)
        _check_own(journey.buyer, instance, info)
        text = f"{journey.buyer.name} was here"
        if not await customers.has_note(web, url, text, ANSWER_SECONDS):
            journey.note = "writing a note, restarting the pod"
            await customers.write_note(web, url, text)
            await _restart_pod(story.kubeconfig, f"berth-{instance['id']}")
        return await customers.has_note(web, url, text, RESTART_SECONDS)


def _check_own(buyer: Buyer, instance: dict[str, object], info: dict[str, object]) -> None:
    # Not the plan that was bought at first: whoever tried the demo may have switched it.
    expected = {"instance": instance["id"], "plan": instance["plan"], "limits": instance["limits"]}
    wrong = [
        f"{key} is {info.get(key)!r}, not {value!r}"
        for key, value in expected.items()
        if info.get(key) != value
    ]
    if wrong:
        raise CommandError(
            f"{buyer.name}'s address shows another instance: {', '.join(wrong)}",
            "this is a defect: report it",
        )


async def _restart_pod(kubeconfig: Path, namespace: str) -> None:
    """Delete the instance's pods and wait until a new one is ready."""
    pods = KINDS["Pod"]
    async with KubernetesClient.connect(kubeconfig) as cluster:
        old = {pod["metadata"]["uid"] for pod in (await cluster.list(pods, namespace=namespace)).items}
        for pod in (await cluster.list(pods, namespace=namespace)).items:
            metadata = pod["metadata"]
            await cluster.delete(
                pods, namespace, metadata["name"], uid=metadata["uid"], propagation="Background"
            )
        async with asyncio.timeout(RESTART_SECONDS):
            while True:
                found = (await cluster.list(pods, namespace=namespace)).items
                if any(pod["metadata"]["uid"] not in old and _is_ready(pod) for pod in found):
                    return
                await asyncio.sleep(POLL_SECONDS)


def _is_ready(pod: dict[str, object]) -> bool:
    status = pod.get("status")
    conditions = status.get("conditions", []) if isinstance(status, dict) else []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def outcome_table(outcomes: list[Outcome]) -> Table:
    """Return the closing table: who got what, where, and how long it took."""
    table = Table(title="Paid, and running", title_style="bold", header_style="bold")
    for heading in ("CUSTOMER", "PLAN", "CPU / MEMORY / STORAGE", "URL"):
        table.add_column(heading, overflow="fold")
    table.add_column("PAYMENT → READY\nevent + plan + pods", justify="right")
    table.add_column("NOTE KEPT")
    for outcome in outcomes:
        size = outcome.instance["size"]
        assert isinstance(size, dict)  # noqa: S101 - the API's schema says so
        table.add_row(
            outcome.account.buyer.name,
            f"{outcome.instance['product']} {outcome.instance['plan']}",
            f"{size['cpu_limit'] / 1000:g} / {size['memory'] >> 20} MiB / {size['storage'] >> 30} GiB",
            outcome.url,
            f"{outcome.timeline.total or 0:.1f} s\n{outcome.timeline}",
            {True: "yes", False: "NO", None: "- (simulated)"}[outcome.kept_note],
        )
    return table
