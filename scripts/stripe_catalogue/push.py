"""Makes Stripe what the catalogue says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import stripe

from catalogue.schema import Catalogue
from scripts.stripe_catalogue.account import Account
from scripts.stripe_catalogue.differences import Difference, differences

ROUNDS: Final = 5


class UnsettledError(Exception):
    """Stripe differs again and again, whatever is mended."""


@dataclass(frozen=True, slots=True)
class Told:
    """Who wants to know: `plan` hears before a round what will be mended, `done` what was, one by one."""

    plan: Callable[[Sequence[Difference]], None]
    done: Callable[[Difference], None]


SILENT: Final = Told(lambda _: None, lambda _: None)


async def push(
    account: Account,
    catalogue: Catalogue,
    *,
    archive: bool = False,
    told: Told = SILENT,
) -> list[Difference]:
    """Mend all that differs, look again, and return what a person must mend.

    A run that is cut off leaves nothing half made that the next would not complete. Of two at once one may be
    refused what the other has done already; that is found by looking again, and only a difference that is
    still there is an error.

    Args:
        account: where.
        catalogue: what should be there.
        archive: whether to archive what the catalogue names no more.
        told: hears how it goes.

    Raises:
        stripe.StripeError: Stripe did not answer, or refused.
        UnsettledError: somebody undoes it.
    """
    refused: set[tuple[str, str]] = set()
    for _ in range(ROUNDS):
        found = differences(catalogue, await account.read(), archive=archive)
        todo = [difference for difference in found if difference.change is not None]
        if not todo:
            return found
        told.plan(todo)
        for difference in todo:
            try:
                await account.apply(difference.change)  # type: ignore[arg-type]  # filtered above
            except stripe.InvalidRequestError:
                if (difference.subject, difference.what) in refused:
                    raise
                refused.add((difference.subject, difference.what))
            else:
                told.done(difference)
    raise UnsettledError(
        "Stripe differs from the catalogue again and again: is another catalogue pushed too?"
    )
