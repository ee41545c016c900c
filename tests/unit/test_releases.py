"""Released programs are taken only over TLS and only when their checksum agrees."""

import datetime as dt
import hashlib
import http.server
import io
import ipaddress
import ssl
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandbox.releases import Release, ReleaseDownloads, ReleaseUnavailableError, architecture, https_client

_PROGRAM = b"a program"


@dataclass
class Host:
    """A release host on the loopback."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


def _certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "releases")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "host.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def host(certificate: Path) -> Iterator[Host]:
    known = Host()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known.asked.append(self.path)
            content = known.files.get(self.path, b"")
            status = 302 if self.path in known.redirects else 200 if self.path in known.files else 404
            self.send_response(status)
            if status == 302:
                self.send_header("Location", known.redirects[self.path])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Stay quiet."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        known.url = f"https://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield known
        server.shutdown()
        thread.join()


@pytest.fixture
async def downloads(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ReleaseDownloads]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with https_client() as client:
        yield ReleaseDownloads(client)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _tar_gz(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        header = tarfile.TarInfo(name)
        header.size = len(content)
        tar.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


async def test_a_bare_program_with_a_bare_checksum(host: Host, downloads: ReleaseDownloads) -> None:
    path = f"/v1/{architecture()}/tool"
    host.files = {path: _PROGRAM, f"{path}.sha256": _sha256(_PROGRAM).encode()}
    url = host.url + "/{version}/{arch}/tool"
    assert await downloads.fetch(Release(url, f"{url}.sha256"), "v1") == _PROGRAM


async def test_an_archive_with_a_list_of_checksums(host: Host, downloads: ReleaseDownloads) -> None:
    archive = _tar_gz("tool-v1/tool", _PROGRAM)
    lines = f"{'0' * 64}  other.tar.gz\n{_sha256(archive)}  tool.tar.gz\n"
    host.files = {"/tool.tar.gz": archive, "/SHA256SUMS": lines.encode()}
    release = Release(f"{host.url}/tool.tar.gz", f"{host.url}/SHA256SUMS", member="tool-{version}/tool")
    assert await downloads.fetch(release, "v1") == _PROGRAM


async def test_one_failure_ends_all_tries(host: Host, downloads: ReleaseDownloads) -> None:
    host.files = {"/good": _PROGRAM, "/good.sha256": _sha256(_PROGRAM).encode()}
    with pytest.raises(ReleaseUnavailableError, match="404"):
        await downloads.fetch(Release(f"{host.url}/none", f"{host.url}/none.sha256"), "v1")
    asked = list(host.asked)
    with pytest.raises(ReleaseUnavailableError, match="404"):
        await downloads.fetch(Release(f"{host.url}/good", f"{host.url}/good.sha256"), "v1")
    assert host.asked == asked


@pytest.mark.parametrize(
    ("checksum", "reason"),
    [("0" * 64, "checksum of .* is wrong"), (f"{'0' * 64}  another-file", "no checksum for tool")],
)
async def test_without_the_right_checksum_nothing_is_taken(
    host: Host, downloads: ReleaseDownloads, checksum: str, reason: str
) -> None:
    host.files = {"/tool": _PROGRAM, "/tool.sha256": checksum.encode()}
    with pytest.raises(ReleaseUnavailableError, match=reason):
        await downloads.fetch(Release(f"{host.url}/tool", f"{host.url}/tool.sha256"), "v1")


async def test_a_redirect_away_from_tls_is_refused(host: Host, downloads: ReleaseDownloads) -> None:
    host.files = {"/tool.sha256": _sha256(_PROGRAM).encode()}
    host.redirects = {"/tool": "http://127.0.0.1:1/tool"}
    with pytest.raises(ReleaseUnavailableError, match="is not https"):
        await downloads.fetch(Release(f"{host.url}/tool", f"{host.url}/tool.sha256"), "v1")


async def test_a_stranger_s_certificate_is_refused(host: Host) -> None:
    host.files = {"/tool": _PROGRAM, "/tool.sha256": _sha256(_PROGRAM).encode()}
    async with httpx.AsyncClient() as client:
        with pytest.raises(ReleaseUnavailableError, match=r"(?i)certificate"):
            await ReleaseDownloads(client).fetch(Release(f"{host.url}/tool", f"{host.url}/tool.sha256"), "v1")
    assert host.asked == []
