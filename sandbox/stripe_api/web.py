"""What every page and call shares: bounded bodies."""

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
