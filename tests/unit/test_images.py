"""Images made without an engine: whole, reproducible, and found again by their content."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sandbox.images import BUSYBOX, PAUSE, SAMPLE, Entry, Image, archive, build_images
from sandbox.processes import SandboxError

_IMAGE = Image(
    "berth.local/test:1",
    [
        Entry("etc"),
        Entry("etc/greeting", b"hello", mode=0o640, owner=7),
        Entry("hello", link="etc/greeting"),
    ],
    ["/run", "--now"],
    user="7:7",
    ports=[8080],
)


def _read(content: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The manifest, the configuration and the only layer of an archive."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:

        def file(name: str) -> bytes:
            member = tar.extractfile(name)
            assert member is not None
            return member.read()

        (manifest,) = json.loads(file("manifest.json"))
        (layer,) = manifest["Layers"]
        return manifest, json.loads(file(manifest["Config"])), file(layer)


def _members(path: Path) -> dict[str, tarfile.TarInfo]:
    _, _, layer = _read(path.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        return {member.name: member for member in tar.getmembers()}


def test_archive_names_its_layer_by_digest_and_carries_the_configuration() -> None:
    manifest, config, layer = _read(archive(_IMAGE))
    assert manifest["RepoTags"] == ["berth.local/test:1"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert config["config"]["Entrypoint"] == ["/run", "--now"]
    assert config["config"]["User"] == "7:7"
    assert config["config"]["ExposedPorts"] == {"8080/tcp": {}}
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        greeting = tar.getmember("etc/greeting")
        assert (greeting.mode, greeting.uid, greeting.gid, greeting.mtime) == (0o640, 7, 7, 0)
        assert tar.getmember("hello").linkname == "etc/greeting"
        assert tar.getmember("etc").isdir()


def test_same_input_gives_the_same_bytes_and_other_input_others() -> None:
    assert archive(_IMAGE) == archive(_IMAGE)
    assert archive(_IMAGE) != archive(Image(_IMAGE.name, _IMAGE.entries, _IMAGE.command, user="8:8"))


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / name for name in ("pause", "sample")}
    for name, path in paths.items():
        path.write_bytes(f"program {name}".encode())
    return paths


async def test_the_three_images(tmp_path: Path, programs: dict[str, Path]) -> None:
    pause, sample, busybox = await build_images(tmp_path, programs)
    found = [_read(path.read_bytes()) for path in (pause, sample, busybox)]
    assert [manifest["RepoTags"] for manifest, _, _ in found] == [[PAUSE], [SAMPLE], [BUSYBOX]]
    users = [config["config"]["User"] for _, config, _ in found]
    assert users == ["65535:65535", "65532:65532", ""], "tenants run as somebody who is not root"
    assert _members(sample)["data"].uid == 65532
    shell = _members(busybox)
    assert shell["bin/sh"].linkname == "busybox"
    assert shell["bin/wget"].linkname == "busybox"
    assert shell["tmp"].mode == 0o1777
    assert shell["bin/busybox"].isfile()


async def test_an_image_is_written_only_when_its_content_is_new(
    tmp_path: Path, programs: dict[str, Path]
) -> None:
    first = await build_images(tmp_path, programs)
    written = [path.stat() for path in first]
    assert await build_images(tmp_path, programs) == first
    assert [path.stat().st_mtime_ns for path in first] == [stat.st_mtime_ns for stat in written]
    programs["sample"].write_bytes(b"another program")
    again = await build_images(tmp_path, programs)
    assert [old == new for old, new in zip(first, again, strict=True)] == [True, False, True]


async def test_an_unwritable_folder_and_a_missing_busybox_are_one_sentence(
    tmp_path: Path, programs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SandboxError, match="BERTH_CACHE_DIR"):
        await build_images(tmp_path / "file", programs)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="busybox-static"):
        await build_images(tmp_path, programs)
