"""What the hosted pages share: templates, what was typed, and where and when they are visited."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sandbox.stripe_api.ledger import Ledger, new_id
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Moment
from sandbox.stripe_api.web import BodyTooLargeError, base_url, read_body

MOST_FIELDS = 20
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_TEMPLATES = Environment(
    loader=PackageLoader("sandbox.stripe_api.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)


class GoneError(Exception):
    """The page cannot be shown: its status, one sentence, and the checkout session it was about."""

    def __init__(self, status: int, sentence: str, session: Json | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.session = session


@dataclass(frozen=True)
class Site:
    """The hosted pages over a ledger.

    Attributes:
        base_url: where they are; None for wherever the caller reached us.
    """

    ledger: Ledger
    base_url: str | None

    def moment(self, request: Request) -> Moment:
        """When and where a page is visited."""
        return Moment(int(self.ledger.clock()), new_id, base_url(request, self.base_url))

    def gone(self, error: GoneError) -> Response:
        """The page that says why another cannot be shown."""
        return render("gone.html", error.status, sentence=str(error), session=error.session)


def render(template: str, status: int, **context: object) -> Response:
    """A page."""
    return HTMLResponse(_TEMPLATES.get_template(template).render(context), status, _HEADERS)


def lead(url: str) -> Response:
    """The way to another page."""
    return RedirectResponse(url, 303, _HEADERS)


async def read_form(request: Request) -> Mapping[str, str]:
    """What was filled in; nothing when the page is only looked at.

    Raises:
        GoneError: that cannot be read.
    """
    if request.method != "POST":
        return {}
    try:
        fields = parse_qsl((await read_body(request)).decode(), max_num_fields=MOST_FIELDS)
    except (BodyTooLargeError, ValueError):
        raise GoneError(400, "This form cannot be read.") from None
    return {name: text.strip() for name, text in fields}
