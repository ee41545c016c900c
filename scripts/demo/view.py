"""The demo's one screen: every customer's way from sign-up to a running instance."""

import time
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from scripts.demo.customers import Buyer

STYLES = {"ready": "bold green", "degraded": "red", "provisioning": "yellow", "pending": "yellow"}


@dataclass(slots=True)
class Journey:
    """How far one buyer has come; `stages` holds each stage with the moment it was first seen."""

    buyer: Buyer
    stages: list[tuple[str, float]] = field(default_factory=list)
    note: str = ""
    done: bool = False

    def reach(self, stage: str) -> None:
        """Note that `stage` was reached now, unless it is the current one."""
        if not self.stages or self.stages[-1][0] != stage:
            self.stages.append((stage, time.monotonic()))


class JourneyScreen:
    """Draws all journeys; hand it to `rich.live.Live`."""

    def __init__(self, journeys: list[Journey]) -> None:
        self._journeys = journeys
        self._spinner = Spinner("dots")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table as it is now."""
        del console, options
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("", "CUSTOMER", "PLAN", "PHASES", "NOW"):
            table.add_column(heading, overflow="fold")
        for journey in self._journeys:
            sign = Text("✓", style="green") if journey.done else self._spinner
            plan = f"{journey.buyer.product} {journey.buyer.plan}"
            table.add_row(sign, journey.buyer.name, plan, _stages(journey), journey.note)
        yield table


def _stages(journey: Journey) -> Text:
    text = Text()
    now = time.monotonic()
    for index, (stage, since) in enumerate(journey.stages):
        last = index + 1 == len(journey.stages)
        until = now if last else journey.stages[index + 1][1]
        if index:
            text.append(" → ", style="dim")
        text.append(stage, style=STYLES.get(stage, "") if last else "dim")
        if not (last and journey.done):
            text.append(f" {until - since:.1f}s", style="dim")
    return text
