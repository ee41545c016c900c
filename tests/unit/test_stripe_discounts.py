"""What coupons take off in the stand-in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.stripe_api.billing.discounts import amounts_off

AMOUNTS = st.lists(st.integers(0, 10**7), max_size=8)


@given(AMOUNTS, st.integers(1, 10**8))
def test_a_sum_is_taken_off_to_the_cent_and_no_line_falls_below_zero(amounts: list[int], off: int) -> None:
    taken = amounts_off({"percent_off": None, "amount_off": off}, amounts)

    assert sum(taken) == min(off, sum(amounts))
    assert all(0 <= part <= amount for part, amount in zip(taken, amounts, strict=True))


@given(AMOUNTS, st.integers(1, 10_000))
def test_a_percentage_is_taken_off_each_line_to_half_a_cent(amounts: list[int], hundredths: int) -> None:
    taken = amounts_off({"percent_off": hundredths / 100, "amount_off": None}, amounts)

    assert all(
        abs(part - amount * hundredths / 10_000) <= 0.5 + 1e-6
        for part, amount in zip(taken, amounts, strict=True)
    )


@pytest.mark.parametrize(
    ("coupon", "amounts", "taken"),
    [
        ({"percent_off": 25.5, "amount_off": None}, [2900, 0, 1], (740, 0, 0)),
        ({"percent_off": 50, "amount_off": None}, [1, 3], (1, 2)),
        ({"percent_off": None, "amount_off": 100}, [100, 100, 100], (33, 34, 33)),
        ({"percent_off": None, "amount_off": 500}, [100, -50, 200], (100, 0, 200)),
        ({"percent_off": None, "amount_off": 500}, [], ()),
    ],
)
def test_halves_round_up_and_credits_stay(
    coupon: dict[str, float | None], amounts: list[int], taken: tuple[int, ...]
) -> None:
    assert amounts_off(coupon, amounts) == taken
