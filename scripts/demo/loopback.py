import httpx


class LoopbackTransport(httpx.AsyncHTTPTransport):
    """Sends `*.localhost` to the loopback address, as browsers do (RFC 6761 6.3) and glibc may not."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; its Host header keeps the name."""
        if request.url.host.endswith(".localhost"):
            request.url = request.url.copy_with(host="127.0.0.1")
        return await super().handle_async_request(request)
