"""Official release downloads: taken when they can be reached, and only when their checksum agrees."""

import asyncio
import hashlib
import io
import platform
import tarfile
from dataclasses import dataclass

import httpx

_TIMEOUT = httpx.Timeout(3.0)
_WHOLE_SECONDS = 600.0
_LARGEST_BYTES = 300 * 1024 * 1024
_LARGEST_CHECKSUMS_BYTES = 64 * 1024
_CHUNK_BYTES = 1024 * 1024
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Release:
    """Where a project publishes its program. Templates know `{version}` and `{arch}`.

    Attributes:
        url: the program, or a .tar.gz that holds it; https.
        checksums: a file with the SHA-256 of what `url` gives: bare, or in lines `<sha256>  <file name>`.
        member: the program's path inside the archive; None when `url` is the program itself.
    """

    url: str
    checksums: str
    member: str | None = None


class ReleaseUnavailableError(Exception):
    """The release cannot be had or cannot be trusted: build from source instead."""


class ReleaseDownloads:
    """Downloads releases until one cannot be had; from then on it refuses, so that it delays a run once."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._refused: str | None = None

    async def fetch(self, release: Release, version: str) -> bytes:
        """The program's bytes, verified.

        Raises:
            ReleaseUnavailableError: unreachable, not published, a wrong checksum, or an earlier failure.
        """
        if self._refused is not None:
            raise ReleaseUnavailableError(self._refused)
        try:
            async with asyncio.timeout(_WHOLE_SECONDS):
                return await self._fetch(release, version)
        except (httpx.HTTPError, tarfile.TarError, KeyError, TimeoutError, ReleaseUnavailableError) as error:
            self._refused = f"released binaries cannot be had here ({error or type(error).__name__})"
            raise ReleaseUnavailableError(self._refused) from error

    async def _fetch(self, release: Release, version: str) -> bytes:
        names = {"version": version, "arch": architecture()}
        url = release.url.format(**names)
        checksums = await self._get(release.checksums.format(**names), _LARGEST_CHECKSUMS_BYTES)
        expected = _find_checksum(checksums.decode(errors="replace"), url.rpartition("/")[2])
        content = await self._get(url, _LARGEST_BYTES)
        if hashlib.sha256(content).hexdigest() != expected:
            raise ReleaseUnavailableError(f"the checksum of {url} is wrong")
        return content if release.member is None else _extract(content, release.member.format(**names))

    async def _get(self, url: str, limit: int) -> bytes:
        content = bytearray()
        async with self._client.stream("GET", url) as response:
            response.raise_for_status()
            async for chunk in response.aiter_bytes(_CHUNK_BYTES):
                content += chunk
                if len(content) > limit:
                    raise ReleaseUnavailableError(f"{url} is larger than {limit} bytes")
        return bytes(content)


def https_client() -> httpx.AsyncClient:
    """A client for `ReleaseDownloads`: gives up after 3 s of silence, and follows redirects to https only."""
    return httpx.AsyncClient(
        timeout=_TIMEOUT, follow_redirects=True, event_hooks={"request": [refuse_plain_http]}
    )


async def refuse_plain_http(request: httpx.Request) -> None:
    """Stop a request that is not https.

    Raises:
        ReleaseUnavailableError: it is not.
    """
    if request.url.scheme != "https":
        raise ReleaseUnavailableError(f"{request.url} is not https")


def architecture() -> str:
    """This machine's architecture in Go's and the container images' words, such as `amd64`."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def _find_checksum(text: str, file_name: str) -> str:
    for line in text.splitlines():
        words = line.split()
        if len(words) == 1 or (len(words) == 2 and words[1].lstrip("*") == file_name):
            return words[0].lower()
    raise ReleaseUnavailableError(f"no checksum for {file_name}")


def _extract(archive: bytes, member: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        file = tar.extractfile(member)
        if file is None:
            raise ReleaseUnavailableError(f"{member} is not a file")
        return file.read()
