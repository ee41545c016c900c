"""berth demo: everything on one machine, and three customers who buy."""

import asyncio
from typing import Annotated

import typer
from rich.panel import Panel

from scripts import machine
from scripts.berth.output import JsonFlag, console, errors, print_json
from scripts.berth.progress import RichProgress
from scripts.demo import stack
from scripts.demo.customers import Accounts
from scripts.demo.story import Outcome, Story, outcome_table, play


def demo(
    stop: Annotated[bool, typer.Option("--stop", help="Stop the demo and remove what it left.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Start everything on this machine and let three customers buy an instance.

    Run it again to see that nothing is done twice.
    """
    asyncio.run(_stop() if stop else _start(as_json=as_json))


async def _stop() -> None:
    await stack.down(RichProgress(console))
    console.print("the demo is stopped; only caches are left")


async def _start(*, as_json: bool) -> None:
    show = errors if as_json else console
    reason = None if machine.existing_cluster() else await machine.why_simulated(stack.NAME)
    if reason:
        show.print(
            Panel(f"Pods are SIMULATED: {reason}.\nNo container runs, no address answers; all else is real.")
        )
    running = await stack.up(RichProgress(show))
    outcomes = await play(
        Story(
            api_url=running.services.api_url,
            apps_url=running.cluster.apps_url,
            database_url=running.database_url,
            kubeconfig=running.cluster.kubeconfig,
            simulated=running.cluster.simulated,
            accounts=Accounts(stack.folder() / "accounts.json"),
        ),
        show,
    )
    if as_json:
        print_json([_plain(outcome) for outcome in outcomes])
        return
    console.print(outcome_table(outcomes))
    environment = running.environment()
    console.print(f"API docs   {environment['BERTH_API_URL']}/docs")
    console.print(f"mailbox    {environment['BERTH_MAILBOX_URL']}")
    console.print("poke at it .berth/demo.env, uv run berth instances list, uv run berth queue list")
    console.print("stop it    make demo-stop")


def _plain(outcome: Outcome) -> dict[str, object]:
    return {
        "customer": outcome.account.buyer.name,
        "instance": outcome.instance,
        "url": outcome.url,
        "seconds_to_ready": outcome.timeline.total,
        "timeline": outcome.timeline,
        "kept_note": outcome.kept_note,
    }
