"""What one call or one moment decides, step by step: each step sees what those before it decided."""

from dataclasses import replace
from typing import Protocol

from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Change, Draft, difference
from sandbox.stripe_api.present import shown
from sandbox.stripe_api.store import Page, Query, State, created_of, label_of


class Decided(Protocol):
    """What somebody else decided: objects to store, and events in the order they happen."""

    @property
    def saved(self) -> tuple[Json, ...]:
        """The objects to store."""

    @property
    def events(self) -> tuple[Draft, ...]:
        """The events, in their order."""


class Decision:
    """What is stored, under what was decided so far: a State to read on from, and a Change in the end."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._saved: dict[str, Json] = {}
        self._removed: set[str] = set()
        self._events: list[Draft] = []

    def find(self, object_id: str) -> Json | None:
        """The object of that id as it will be; None if there will be none."""
        if object_id in self._removed:
            return None
        return self._saved.get(object_id) or self._state.find(object_id)

    def page(self, query: Query, page: Page) -> tuple[list[Json], bool]:
        """Objects as they will be: first what was decided, then the rest, newest first each."""
        decided = [one for one in reversed(self._saved.values()) if _matches(one, query)]
        if page.starting_after or page.ending_before:
            raise NotImplementedError("what is being decided is read from its beginning")
        rest = replace(query, keep=lambda one: self._is_untouched(one["id"]) and query.keep(one))
        room = max(page.limit - len(decided), 0)
        stored, more = self._state.page(rest, Page(room))
        return [*decided[: page.limit], *stored], more or len(decided) > page.limit

    def save(self, *objects: Json) -> None:
        """Store objects, new or changed."""
        self._saved.update((one["id"], one) for one in objects)

    def remove(self, object_id: str) -> None:
        """Forget an object."""
        self._saved.pop(object_id, None)
        self._removed.add(object_id)

    def tell(self, kind: str, subject: Json, before: Json | None = None) -> None:
        """An event about an object as it is now; `before`, what it was, makes its `previous_attributes`."""
        seen = shown(subject, self)
        previous = None if before is None else difference(shown(before, self), seen)
        self._events.append(Draft(kind, seen, previous))

    def take(self, decided: Decided) -> None:
        """Add what somebody else decided."""
        self.save(*decided.saved)
        self._events.extend(decided.events)

    def change(self, answer: Json, refusal: ApiError | None = None) -> Change:
        """All of it, answering with an object as it will be, or with a refusal in spite of what happened."""
        return Change(
            shown(answer, self),
            tuple(self._saved.values()),
            tuple(self._events),
            tuple(self._removed),
            refusal,
        )

    def _is_untouched(self, object_id: str) -> bool:
        return object_id not in self._saved and object_id not in self._removed


def _matches(one: Json, query: Query) -> bool:
    return (
        one["object"] == query.kind
        and query.label in (None, label_of(one))
        and query.since <= created_of(one) <= query.until
        and query.keep(one)
    )
