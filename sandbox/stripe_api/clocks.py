"""Whose time it is: a test clock's for its customers and all that is theirs, else the sandbox's own."""

from dataclasses import replace

from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Moment, found
from sandbox.stripe_api.store import State
from sandbox.stripe_api.timetable import clock_of


def in_time_of(owner: Json, state: State, moment: Moment) -> Moment:
    """The moment as it is for a customer, or for a subscription or an invoice of theirs."""
    clock = clock_of(owner)
    if clock is None:
        return moment
    return replace(moment, now=found(state, "test_helpers.test_clock", clock)["frozen_time"])


def in_time_of_customer(customer: str | None, state: State, moment: Moment) -> Moment:
    """The moment as it is for the customer of that id; the sandbox's for None, or for one who was deleted."""
    owner = None if customer is None else state.find(customer)
    return moment if owner is None else in_time_of(owner, state, moment)
