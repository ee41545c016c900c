"""Container images made here, without an engine or a registry: archives that containerd imports."""

import asyncio
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.binaries import install
from sandbox.processes import SandboxError
from sandbox.releases import architecture

PAUSE = "berth.local/pause:1"
SAMPLE = "berth.local/sample:1"
BUSYBOX = "berth.local/busybox:1"

IMAGE_BINARIES = ("pause", "sample")
"""The programs `build_images` needs from `sandbox.binaries`."""

_SAMPLE_USER = 65532
_PAUSE_USER = 65535
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_EPOCH = "1970-01-01T00:00:00Z"
_LIST_SECONDS = 10.0

_NAME_LOOKUP = ("libc.so.6", "libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")
"""Debian's static busybox still loads these, at run time, to look up a host's name."""


@dataclass(frozen=True)
class Entry:
    """One file, folder or link of an image.

    Attributes:
        path: relative to the image's root.
        content: of a file.
        link: what a symbolic link points to; an entry with neither is a folder.
        mode: permission bits.
        owner: user and group id.
    """

    path: str
    content: bytes | None = None
    link: str | None = None
    mode: int = 0o755
    owner: int = 0


@dataclass(frozen=True)
class Image:
    """An image of one layer.

    Attributes:
        name: with its tag.
        entries: what is in it, parents first.
        command: what runs in a container of it.
        user: numeric `uid:gid`; empty for root.
        ports: TCP ports it serves on.
    """

    name: str
    entries: Sequence[Entry]
    command: Sequence[str]
    user: str = ""
    ports: Sequence[int] = ()


async def build_images(cache_dir: Path, binaries: Mapping[str, Path]) -> list[Path]:
    """Archives of the pause, sample and busybox images; made only when their content is new.

    Args:
        cache_dir: they go to its folder `images`, under a name that changes with their content.
        binaries: where the programs named in `IMAGE_BINARIES` are.

    Raises:
        SandboxError: busybox is missing, or the folder cannot be written.
    """
    folder = cache_dir / "images"
    busybox = _find_busybox()
    images = [
        _pause(binaries["pause"]),
        _sample(binaries["sample"]),
        _busybox(busybox, await _applets(busybox)),
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_store(image, folder) for image in images]
    except OSError as error:
        raise SandboxError(
            f"cannot keep images in {folder}: {error}: make room, or set BERTH_CACHE_DIR to another folder"
        ) from error


def archive(image: Image) -> bytes:
    """The image as `docker save` would write it (a docker-archive); the same input gives the same bytes.

    Source: the Docker image specification v1.2, which containerd's import reads.
    """
    layer = _tar(image.entries)
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = _json(_config(image, layer_digest))
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{layer_digest}/layer.tar"
    manifest = _json([{"Config": config_name, "RepoTags": [image.name], "Layers": [layer_name]}])
    return _tar(
        [
            Entry(config_name, config, mode=0o644),
            Entry(layer_digest),
            Entry(layer_name, layer, mode=0o644),
            Entry("manifest.json", manifest, mode=0o644),
        ]
    )


def _store(image: Image, folder: Path) -> Path:
    content = archive(image)
    short_name = image.name.rpartition("/")[2].replace(":", "-")
    path = folder / f"{short_name}-{hashlib.sha256(content).hexdigest()[:12]}.tar"
    if not path.exists():
        install(content, path, mode=0o644)
    return path


def _config(image: Image, layer_digest: str) -> dict[str, object]:
    return {
        "architecture": architecture(),
        "os": "linux",
        "created": _EPOCH,
        "config": {
            "Entrypoint": list(image.command),
            "Env": [_PATH],
            "User": image.user,
            "WorkingDir": "/",
            "ExposedPorts": {f"{port}/tcp": {} for port in image.ports},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        "history": [{"created": _EPOCH}],
    }


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _tar(entries: Iterable[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry in entries:
            tar.addfile(_header(entry), None if entry.content is None else io.BytesIO(entry.content))
    return buffer.getvalue()


def _header(entry: Entry) -> tarfile.TarInfo:
    header = tarfile.TarInfo(entry.path)
    header.mode, header.uid, header.gid = entry.mode, entry.owner, entry.owner
    if entry.link is not None:
        header.type, header.linkname, header.mode = tarfile.SYMTYPE, entry.link, 0o777
    elif entry.content is None:
        header.type = tarfile.DIRTYPE
    else:
        header.size = len(entry.content)
    return header


def _pause(program: Path) -> Image:
    entries = [Entry("pause", program.read_bytes())]
    return Image(PAUSE, entries, ["/pause"], user=f"{_PAUSE_USER}:{_PAUSE_USER}")


def _sample(program: Path) -> Image:
    entries = [
        Entry("etc"),
        Entry("etc/passwd", _users(("sample", _SAMPLE_USER)), mode=0o644),
        Entry("data", mode=0o700, owner=_SAMPLE_USER),
        Entry("sample", program.read_bytes()),
    ]
    return Image(SAMPLE, entries, ["/sample"], user=f"{_SAMPLE_USER}:{_SAMPLE_USER}", ports=[8080])


def _find_busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise SandboxError("busybox is missing: install the Debian package busybox-static")
    return Path(found)


def _busybox(program: Path, applets: Iterable[str]) -> Image:
    folders = ["bin", "dev", "etc", "lib", "lib64", "proc", "root", "sys", "usr", "usr/bin", "var"]
    entries = [
        *(Entry(folder) for folder in folders),
        Entry("tmp", mode=0o1777),
        Entry("etc/passwd", _users(("root", 0), ("nobody", 65534)), mode=0o644),
        Entry("etc/nsswitch.conf", b"hosts: files dns\n", mode=0o644),
        Entry("bin/busybox", program.read_bytes()),
        *(Entry(f"bin/{applet}", link="busybox") for applet in applets),
        *_name_lookup(),
    ]
    return Image(BUSYBOX, entries, ["/bin/sh"])


async def _applets(busybox: Path) -> list[str]:
    process = await asyncio.create_subprocess_exec(busybox, "--list", stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(_LIST_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return sorted(set(output.decode().split()) - {"busybox"})


def _name_lookup() -> Iterable[Entry]:
    """The C library's files for looking up names, where this machine has them."""
    for libc in sorted(Path("/lib").glob("*-linux-gnu/libc.so.6")):
        folder = str(libc.parent).lstrip("/")
        yield Entry(folder)
        for name in _NAME_LOOKUP:
            file = libc.parent / name
            if file.exists():
                yield Entry(f"{folder}/{name}", file.read_bytes())
    for loader in sorted([*Path("/lib64").glob("ld-linux*.so.*"), *Path("/lib").glob("ld-linux*.so.*")]):
        yield Entry(str(loader).lstrip("/"), loader.read_bytes())


def _users(*users: tuple[str, int]) -> bytes:
    return "".join(f"{name}:x:{number}:{number}::/:/bin/sh\n" for name, number in users).encode()
