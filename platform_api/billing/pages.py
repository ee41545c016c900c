"""The few pages that browsers see which come from Stripe or from an e-mail."""

from html import escape

from fastapi.responses import HTMLResponse

PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
"""Headers for whatever has a secret in its address."""

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title}</title><h1>{title}</h1><p>{text}</p></html>
"""


def page(title: str, text: str, status: int = 200, headers: dict[str, str] | None = None) -> HTMLResponse:
    """Return a page that says one thing."""
    return HTMLResponse(_PAGE.format(title=escape(title), text=escape(text)), status, headers)
