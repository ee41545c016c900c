"""A person looks exactly when the money of a charge is not safely ours."""

import pytest

from provisioner.clients.stripe import StripeCharge, StripeDispute
from provisioner.reviews import causes


def charge(*disputes: tuple[str, str], refunded: bool = False) -> StripeCharge:
    return StripeCharge(
        id="ch_1",
        customer_id="cus_1",
        payment_intent="pi_1",
        amount=2900,
        currency="usd",
        refunded=refunded,
        disputes=tuple(StripeDispute(id_, status, "fraudulent") for id_, status in disputes),
    )


@pytest.mark.parametrize(
    ("status", "keys"),
    [
        ("needs_response", ["dp_1:open"]),
        ("under_review", ["dp_1:open"]),
        ("warning_needs_response", ["dp_1:open"]),
        ("warning_under_review", ["dp_1:open"]),
        ("a_status_of_the_future", ["dp_1:open"]),
        ("lost", ["dp_1:lost"]),
        ("won", []),
        ("warning_closed", []),
        ("prevented", []),
    ],
)
def test_a_dispute_is_looked_at_unless_it_ended_well(status: str, keys: list[str]) -> None:
    assert [cause.key for cause in causes(charge(("dp_1", status)))] == keys


def test_only_a_full_refund_counts_and_every_cause_is_told() -> None:
    assert list(causes(charge())) == []
    both = causes(charge(("dp_1", "won"), ("dp_2", "lost"), refunded=True))
    assert [(cause.key, cause.sentence) for cause in both] == [
        ("ch_1:refunded", "charge ch_1 (29.00 usd) was refunded in full"),
        ("dp_2:lost", "charge ch_1 (29.00 usd) was lost to a dispute (fraudulent)"),
    ]
