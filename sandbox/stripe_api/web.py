"""What every page and call shares: bounded bodies, and where this server is."""

from starlette.requests import Request

LARGEST_BODY = 1 << 20


class BodyTooLargeError(Exception):
    """The request's body is over the limit."""


async def read_body(request: Request) -> bytes:
    """The whole body.

    Raises:
        BodyTooLargeError: it is over 1 MiB; the rest was not read.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise BodyTooLargeError
    return bytes(body)


def base_url(request: Request, known: str | None = None) -> str:
    """Where this server's pages are: as is known, else wherever the caller reached us."""
    return known or str(request.base_url).rstrip("/")
