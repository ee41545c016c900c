"""What an operation may be asked: closed models, and Stripe's words for what does not fit them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from sandbox.stripe_api.errors import ApiError

MOST_METADATA_KEYS = 50
LONGEST_METADATA_KEY = 40
LONGEST_METADATA_VALUE = 500
LARGEST_PAGE = 100

T = TypeVar("T")


def _listed(value: object) -> object:
    """The list that a form sends as an object keyed "0", "1", and so on."""
    if isinstance(value, dict) and all(key.isdecimal() for key in value):
        return [value[key] for key in sorted(value, key=int)]
    return value


def _boolean(value: object) -> object:
    if value not in ("true", "false"):
        raise PydanticCustomError("bool_parsing", "Invalid boolean")
    return value == "true"


def unset(value: object) -> object:
    """Stripe reads an empty value as: clear this."""
    return None if value == "" else value


def _metadata(value: dict[str, str]) -> dict[str, str]:
    if len(value) > MOST_METADATA_KEYS:
        raise PydanticCustomError(
            "metadata", "Metadata can have up to {most} keys", {"most": MOST_METADATA_KEYS}
        )
    for key, text in value.items():
        if len(key) > LONGEST_METADATA_KEY or len(text) > LONGEST_METADATA_VALUE:
            raise PydanticCustomError(
                "metadata",
                "Metadata keys have up to {key} characters and values up to {value}",
                {"key": LONGEST_METADATA_KEY, "value": LONGEST_METADATA_VALUE},
            )
    return value


def _without_empty(value: dict[str, str]) -> dict[str, str]:
    return {key: text for key, text in value.items() if text}


def _web_address(value: str) -> str:
    if not value.startswith(("http://", "https://")) or any(c.isspace() for c in value):
        raise PydanticCustomError("url_invalid", "Not a valid URL")
    return value


Flag = Annotated[bool, BeforeValidator(_boolean)]
Text = Annotated[str, Field(min_length=1, max_length=5000)]
ClearableText = Annotated[Text | None, BeforeValidator(unset)]
Url = Annotated[str, Field(min_length=1, max_length=5000), AfterValidator(_web_address)]
Amount = Annotated[int, Field(ge=1, le=99_999_999)]
Count = Annotated[int, Field(ge=0, le=999_999_999_999)]
Timestamp = Annotated[int, Field(ge=0, le=99_999_999_999)]
Metadata = Annotated[dict[str, str], AfterValidator(_metadata), AfterValidator(_without_empty)]
MetadataChange = Annotated[
    Annotated[dict[str, str], AfterValidator(_metadata)] | None, BeforeValidator(unset)
]
"""None clears all of it, an empty value clears its key, the rest is merged."""
FormList = Annotated[list[T], BeforeValidator(_listed), Field(max_length=100)]


class Params(BaseModel):
    """Base of every request's parameters; each may ask to expand."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    expand: FormList[Text] = []


class Nested(BaseModel):
    """Base of an object within parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Address(Nested):
    """Where somebody is."""

    city: ClearableText = None
    country: ClearableText = None
    line1: ClearableText = None
    line2: ClearableText = None
    postal_code: ClearableText = None
    state: ClearableText = None


class TimeRange(Nested):
    """Bounds of a time, Unix seconds."""

    gt: Timestamp | None = None
    gte: Timestamp | None = None
    lt: Timestamp | None = None
    lte: Timestamp | None = None

    def first(self) -> int:
        """The earliest second within."""
        return max(self.gte or 0, -1 if self.gt is None else self.gt + 1)

    def last(self) -> int:
        """The latest second within."""
        ends = [end for end in (self.lte, None if self.lt is None else self.lt - 1) if end is not None]
        return min(ends, default=2**62)

    def covers(self, moment: int) -> bool:
        """Whether a second is within."""
        return self.first() <= moment <= self.last()


def _time_range(value: object) -> object:
    return {"gte": value, "lte": value} if isinstance(value, str) else value


Range = Annotated[TimeRange, BeforeValidator(_time_range)]
"""A time, or the bounds of it."""


class ListParams(Params):
    """One page of a list, newest first."""

    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = 10
    starting_after: Text | None = None
    ending_before: Text | None = None


class DatedListParams(ListParams):
    """A list that can be narrowed by age."""

    created: Range = TimeRange()


P = TypeVar("P", bound=Params)


def parse(model: type[P], raw: Mapping[str, Any]) -> P:
    """The parameters `model` describes.

    Raises:
        ApiError: what Stripe would answer, about the first fault.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False)) from error


def _refusal(faults: Sequence[ErrorDetails]) -> ApiError:
    unknown = [_name(fault) for fault in faults if fault["type"] == "extra_forbidden"]
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        return ApiError(
            f"Received unknown parameter{plural}: {', '.join(unknown)}",
            code="parameter_unknown",
            param=unknown[0],
            began=False,
        )
    fault = next((fault for fault in faults if fault["type"] == "missing"), faults[0])
    message, code = _words(fault)
    return ApiError(message, code=code, param=_name(fault), began=False)


_WORDS: Mapping[str, tuple[str, str | None]] = {
    "missing": ("Missing required param: {name}.", "parameter_missing"),
    "string_too_short": ("{name} was given an empty string, and cannot be unset.", "parameter_invalid_empty"),
    "int_parsing": ("Invalid integer: {given}", "parameter_invalid_integer"),
    "bool_parsing": ("Invalid boolean: {given}", None),
    "literal_error": ("Invalid {name}: must be one of {expected}", None),
    "url_invalid": ("Not a valid URL", "url_invalid"),
    "email_invalid": ("Invalid email address: {given}", "email_invalid"),
    "dict_type": ("Invalid object: {given}", None),
    "model_type": ("Invalid object: {given}", None),
    "list_type": ("Invalid array: {given}", None),
    "string_type": ("Invalid string: {given}", None),
}
"""By pydantic's type of fault: Stripe's message and code."""


def _words(fault: ErrorDetails) -> tuple[str, str | None]:
    message, code = _WORDS.get(fault["type"], ("Invalid {name}: {why}", None))
    expected = fault.get("ctx", {}).get("expected", "")
    given = str(fault["input"])[:100]
    return message.format(name=_name(fault), given=given, expected=expected, why=fault["msg"]), code


def _name(fault: ErrorDetails) -> str:
    first, *rest = (str(part) for part in fault["loc"])
    return first + "".join(f"[{part}]" for part in rest)
