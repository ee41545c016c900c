"""The Stripe stand-in's pure parts."""

from datetime import UTC, datetime
from typing import Any

import pytest

from sandbox.stripe_api import forms
from sandbox.stripe_api.billing.periods import Interval, period_end
from sandbox.stripe_api.cards import CardRefusedError, named, typed
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.money import amount_text, interval_text
from sandbox.stripe_api.resources.search import matcher
from sandbox.stripe_api.webhooks.faults import Faults, planned
from sandbox.stripe_api.webhooks.signature import signature

NOW = int(datetime(2026, 11, 21, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("fields", "decoded"),
    [
        ([("a", "1"), ("b[c][d]", "2")], {"a": "1", "b": {"c": {"d": "2"}}}),
        (
            [("items[0][price]", "p"), ("items[1][price]", "q")],
            {"items": {"0": {"price": "p"}, "1": {"price": "q"}}},
        ),
        ([("expand[]", "x"), ("expand[]", "y")], {"expand": {"0": "x", "1": "y"}}),
        (
            [("i[][p]", "a"), ("i[][q]", "1"), ("i[][p]", "b"), ("i[][q]", "2")],
            {"i": {"0": {"p": "a", "q": "1"}, "1": {"p": "b", "q": "2"}}},
        ),
        ([("a", "1"), ("a", "2")], {"a": "2"}),
        ([("m[]", "")], {"m": {"0": ""}}),
    ],
)
def test_a_form_nests(fields: list[tuple[str, str]], decoded: dict[str, Any]) -> None:
    assert forms.decode(fields) == decoded


@pytest.mark.parametrize(
    "fields",
    [
        [("a[b", "1")],
        [("", "1")],
        [("[a]", "1")],
        [("a]b", "1")],
        [("a", "1"), ("a[b]", "2")],
        [("a[b]", "1"), ("a", "2")],
        [("a" + "[b]" * 8, "1")],
        [(f"a{n}", "1") for n in range(forms.MOST_FIELDS + 1)],
    ],
)
def test_a_form_that_makes_no_sense_is_refused(fields: list[tuple[str, str]]) -> None:
    with pytest.raises(ApiError):
        forms.decode(fields)


@pytest.mark.parametrize(
    ("start", "interval", "count", "end"),
    [
        ("2026-01-31", "month", 1, "2026-02-28"),
        ("2028-01-31", "month", 1, "2028-02-29"),
        ("2026-11-21", "month", 2, "2027-01-21"),
        ("2026-12-31", "month", 12, "2027-12-31"),
        ("2028-02-29", "year", 1, "2029-02-28"),
        ("2026-11-21", "week", 2, "2026-12-05"),
        ("2026-02-28", "day", 1, "2026-03-01"),
    ],
)
def test_a_period_ends_on_the_calendar(start: str, interval: Interval, count: int, end: str) -> None:
    def seconds(day: str) -> int:
        return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())

    assert period_end(seconds(start), interval, count) == seconds(end)


def test_a_card_is_read_as_people_type_it() -> None:
    card = typed(" 4242 4242 4242 4242 ", "07 / 31", NOW)

    assert (card.test.number, card.exp_month, card.exp_year) == ("4242424242424242", 7, 2031)
    assert typed("4242424242424242", "", NOW).exp_year == 2028
    assert typed("4242424242424242", "11/2026", NOW).exp_month == 11


def test_a_card_is_known_by_stripes_names_for_it() -> None:
    by_name = [named(name, NOW) for name in ("pm_card_amex", "tok_amex", "tok_other", "amex")]

    assert [card and card.test.brand for card in by_name] == ["amex", "amex", None, None]


@pytest.mark.parametrize(
    ("number", "expiry", "sentence"),
    [
        ("4242424242424242", "10/26", "in the past"),
        ("4242424242424242", "13/30", "write it as"),
        ("4242424242424242", "1" * 5000 + "/30", "write it as"),
        ("4242424242424242", "07", "write it as"),
        ("", "", "number is invalid"),
        ("4" * 5000, "", "number is invalid"),
        ("٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢", "", "number is invalid"),
        ("4111111111111111", "", "only Stripe's test cards"),
    ],
)
def test_a_card_is_refused_with_the_reason(number: str, expiry: str, sentence: str) -> None:
    with pytest.raises(CardRefusedError, match=sentence):
        typed(number, expiry, NOW)


def test_money_is_read_by_people() -> None:
    assert amount_text(1234567, "usd") == "$12,345.67"
    assert amount_text(500, "jpy") == "JPY 500"
    assert amount_text(5, "chf") == "CHF 0.05"
    assert interval_text("month", 1) == "per month"
    assert interval_text("month", 3) == "every 3 months"


def test_a_signature_is_hmac_over_time_and_body() -> None:
    # Computed with `printf '1.{}' | openssl dgst -sha256 -hmac whsec_x`
    expected = "36ee2f7498f0c1777d1312b2a7361947fe5ad31223be30d0c62421f4ca753401"

    assert signature(b"{}", ["whsec_x"], 1) == f"t=1,v1={expected}"
    assert signature(b"{}", ["whsec_x", "whsec_x"], 1) == f"t=1,v1={expected},v1={expected}"


def test_faults_shape_what_is_planned() -> None:
    events = [{"id": f"evt_{n}", "type": "invoice.paid"} for n in range(4)]
    endpoints = [
        {"id": "we_all", "status": "enabled", "enabled_events": ["*"]},
        {"id": "we_off", "status": "disabled", "enabled_events": ["*"]},
        {"id": "we_other", "status": "enabled", "enabled_events": ["price.created"]},
    ]
    faults = Faults(drop=1, duplicate=1, delay_seconds=5, reorder=True)

    plan, remaining = planned(events, endpoints, faults, 100.0)

    assert [(one.event, one.state) for one in plan] == [
        ("evt_0", "dropped"),
        *[(f"evt_{n}", "pending") for n in (1, 1, 2, 2, 3, 3)],
    ]
    dues = [one.due for one in plan[1:]]
    assert dues == pytest.approx([105.4, 105.4, 105.2, 105.2, 105.0, 105.0])
    assert {one.endpoint for one in plan} == {"we_all"}
    assert remaining == faults.model_copy(update={"drop": 0, "seed": 1})


def test_random_faults_repeat_with_their_seed_and_differ_without() -> None:
    events = [{"id": f"evt_{n}", "type": "invoice.paid"} for n in range(30)]
    endpoints = [{"id": "we_1", "status": "enabled", "enabled_events": ["*"]}]
    faults = Faults(chance=0.5, drop=5, duplicate=1, shuffle_seconds=60, seed=7)

    plan, remaining = planned(events, endpoints, faults, 0.0)

    assert planned(events, endpoints, faults, 0.0) == (plan, remaining)
    assert planned(events, endpoints, faults.model_copy(update={"seed": 8}), 0.0)[0] != plan
    assert {one.event for one in plan} == {event["id"] for event in events}
    dropped = [one for one in plan if one.state == "dropped"]
    untouched = [one for one in plan if one.state == "pending" and one.due == 0]
    twice = [one for one in plan if one.state == "pending" and 0 < one.due <= 60]
    assert len(dropped) == 5
    assert 5 <= len(untouched) <= 25
    assert len(untouched) + len(dropped) + len(twice) // 2 == 30
    assert [one.event for one in sorted(twice, key=lambda one: one.due)] != [one.event for one in twice]


FOUND = {
    "object": "customer",
    "email": "Ada@example.com",
    "name": None,
    "created": 100,
    "metadata": {"order": "67", "it's": 'a "b"'},
}


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ("email:'ada@example.com'", True),
        ('email:"bob@example.com"', False),
        ("-email:'bob@example.com'", True),
        ("email~'EXAM'", True),
        ("name:null", True),
        ("-metadata['order']:null", True),
        ("metadata['order']:'67' AND email~'ada'", True),
        ("metadata['order']:'68' OR created>=100", True),
        ("created>100 or created<100", False),
        ("created:100 email:'nobody'", False),
        ("""metadata["it's"]:'a "b"'""", True),
        (r"""metadata["it's"]:"a \"b\"" """, True),
    ],
)
def test_a_search_finds_what_it_asks_for(query: str, matches: bool) -> None:
    assert matcher(query, frozenset({"email", "name", "created", "metadata"}))(FOUND) is matches


@pytest.mark.parametrize(
    "query",
    [
        "ada",
        "email:ada",
        "email~'ad'",
        "phone:'1'",
        "metadata:'1'",
        "email>'a'",
        "email:'a' AND name:'b' OR name:'c'",
        "email:'a' AND",
        " AND ".join(["created:1"] * 11),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(query: str) -> None:
    with pytest.raises(ApiError) as refused:
        matcher(query, frozenset({"email", "name", "created", "metadata"}))
    assert refused.value.param == "query"
