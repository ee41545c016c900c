"""What one API call does: a pure function from what is stored and what is asked to what changes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from sandbox.stripe_api.errors import ApiError, missing_object
from sandbox.stripe_api.objects import Json, list_of
from sandbox.stripe_api.params import ListParams, Params
from sandbox.stripe_api.present import shown
from sandbox.stripe_api.store import Page, Query, State

P_co = TypeVar("P_co", bound=Params, covariant=True)
P = TypeVar("P", bound=Params)
L = TypeVar("L", bound=ListParams)


@dataclass(frozen=True)
class Moment:
    """What an operation may know of the world.

    Attributes:
        now: Unix seconds.
        new_id: a fresh id with the given prefix: `new_id("cus")`.
        base_url: where this server's pages are.
    """

    now: int
    new_id: Callable[[str], str]
    base_url: str


@dataclass(frozen=True)
class Asked(Generic[P_co]):
    """One call: the ids in its path, its parameters, and what it may read."""

    ids: Mapping[str, str]
    params: P_co
    state: State
    moment: Moment


@dataclass(frozen=True)
class Draft:
    """An event to come: its type, the object as it then is, and what of it was different before."""

    kind: str
    subject: Json
    previous: Json | None = None


@dataclass(frozen=True)
class Change:
    """What an operation decided.

    Attributes:
        answer: what the caller gets, before expansion.
        saved: objects to store, new or changed.
        events: in the order they happen.
        removed: ids to forget.
        refusal: what the caller gets instead of the answer though all of this happened: a declined payment.
    """

    answer: Json
    saved: tuple[Json, ...] = ()
    events: tuple[Draft, ...] = ()
    removed: tuple[str, ...] = ()
    refusal: ApiError | None = None


@dataclass(frozen=True)
class Operation(Generic[P]):
    """A call of the API.

    Attributes:
        method: HTTP's.
        path: as the router reads it: `/v1/customers/{customer}`.
        params: what it may be asked.
        run: decides; raises ApiError.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    params: type[P]
    run: Callable[[Asked[P]], Change] = field(repr=False)


def found(state: State, kind: str, object_id: str, param: str = "id") -> Json:
    """The object of that id and kind; `param` names the parameter that holds the id, `id` for the path.

    Raises:
        ApiError: there is none.
    """
    candidate = state.find(object_id)
    if candidate is None or candidate["object"] != kind or candidate.get("deleted"):
        raise missing_object(kind.replace("_", " ").replace(".", " "), object_id, param)
    return candidate


def retrieval(path: str, kind: str) -> Operation[Params]:
    """The operation that answers one object of `kind`; the path's last part names the id."""
    placeholder = _placeholder(path)

    def run(asked: Asked[Params]) -> Change:
        return Change(shown(found(asked.state, kind, asked.ids[placeholder]), asked.state))

    return Operation("GET", path, Params, run)


def _placeholder(path: str) -> str:
    return path.rpartition("{")[2].partition("}")[0]


def listing(path: str, params: type[L], query: Callable[[Asked[L]], Query]) -> Operation[L]:
    """The operation that answers a page of what `query` describes."""

    def run(asked: Asked[L]) -> Change:
        wanted = query(asked)
        objects, has_more = asked.state.page(wanted, _page(asked, wanted.kind))
        url = path.format(**asked.ids)
        return Change(list_of([shown(one, asked.state) for one in objects], url, has_more=has_more))

    return Operation("GET", path, params, run)


def _page(asked: Asked[L], kind: str) -> Page:
    params = asked.params
    if params.starting_after and params.ending_before:
        raise ApiError("You may use only one of starting_after and ending_before.", param="ending_before")
    for name in ("starting_after", "ending_before"):
        cursor = getattr(params, name)
        if cursor is not None:
            found(asked.state, kind, cursor, name)
    return Page(params.limit, params.starting_after, params.ending_before)


def merged_metadata(old: Mapping[str, str], change: Mapping[str, str] | None) -> dict[str, str]:
    """Metadata after an update: None clears all, an empty value its key."""
    if change is None:
        return {}
    return {key: value for key, value in {**old, **change}.items() if value != ""}


def updated(old: Json, params: Params, names: tuple[str, ...]) -> Json:
    """`old` with those of `names` that were given, and metadata merged."""
    given = params.model_dump(exclude_unset=True)
    new = {**old, **{name: given[name] for name in names if name in given}}
    if "metadata" in given:
        new["metadata"] = merged_metadata(old["metadata"], given["metadata"])
    return new


def difference(old: Json, new: Json) -> Json:
    """An event's `previous_attributes`: the old values of what changed."""
    changed: Json = {}
    for name, value in old.items():
        if value == new.get(name):
            continue
        if name == "metadata":
            keys = {*value, *new[name]}
            changed[name] = {key: value.get(key) for key in keys if value.get(key) != new[name].get(key)}
        else:
            changed[name] = value
    return changed


def update(kind: str, old: Json, new: Json, state: State) -> Change:
    """The change from `old` to `new` with its `<kind>.updated` event; nothing happens when they are equal."""
    answer = shown(new, state)
    if old == new:
        return Change(answer)
    event = Draft(f"{kind}.updated", answer, difference(shown(old, state), answer))
    return Change(answer, (new,), (event,))
