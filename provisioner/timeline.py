"""What an instance's timeline tells of its subscription, in people's words. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from provisioner.contract.spec import Desired, InstanceSpec
from provisioner.entitlement import Entitlement, Owed, date


@dataclass(frozen=True, slots=True)
class Word:
    """What Stripe says of a subscription at one time; `ends_at` if it is to end by itself."""

    status: str
    ends_at: datetime | None


def changes(before: InstanceSpec, after: InstanceSpec, owed: Entitlement) -> Iterator[tuple[str, str]]:
    """Yield reason and message of what changed in a spec, because of `owed`."""
    if after.plan != before.plan:
        yield "PlanChanged", f"from {before.plan} to {after.plan}"
    if (after.quantity, after.add_ons) != (before.quantity, before.add_ons):
        yield "QuantitiesChanged", f"now {_quantities(after)}"
    if after.desired is not before.desired:
        match after.desired:
            case Desired.RUNNING:
                yield "Resuming", owed.reason
            case Desired.SUSPENDED:
                kept = f"; its data is kept until {date(owed.delete_at)}" if owed.delete_at else ""
                yield "Suspending", owed.reason + kept
            case Desired.DELETED:
                yield "RetentionOver", owed.reason


def news(before: Word, after: Word, owed: Entitlement) -> Iterator[tuple[str, str]]:
    """Yield reason and message of what changed at Stripe while the instance runs on."""
    if owed.owed is not Owed.RUN:
        return
    if after.status != before.status:
        yield after.status.title().replace("_", ""), owed.reason
    if after.ends_at is not None and before.ends_at is None:
        yield "Ending", f"it was cancelled and runs until {date(after.ends_at)}"
    elif after.ends_at is None and before.ends_at is not None:
        yield "GoingOn", "its cancellation was taken back"


def _quantities(spec: InstanceSpec) -> str:
    plan = f"{spec.quantity} x {spec.plan}" if spec.quantity > 1 else spec.plan
    return " + ".join([plan, *(f"{count} x {name}" for name, count in sorted(spec.add_ons.items()))])
