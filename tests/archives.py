"""Archives for tests of `files`: made, restored, forged."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import StageContext
from pipeline.stage import CHUNK
from schemas.sources import FilesSource
from stages.sources.files import Files

NOBODY = 65534
IS_ROOT = os.geteuid() == 0
BLOCK = bytes(range(256)) * 4096


class WithPlace:
    """Tests that need a directory which every user may enter."""

    @pytest.fixture
    def place(self) -> Iterator[Path]:
        path = Path(tempfile.mkdtemp(prefix="nxs-files-"))
        path.chmod(0o755)
        yield path
        # The trees are deeper than shutil goes, and hold directories without permissions.
        subprocess.run(["chmod", "-R", "u+rwX", path], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", path], check=True)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Lose root's rights for a while."""
    if not IS_ROOT:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def files(*paths: Path, **spec: Any) -> Files:
    spec = {"names": "relative", **spec}
    model: Any = {"type": "files", "paths": [str(path) for path in paths], **spec}
    return Files(FilesSource.model_validate(model), "backup")


def stream(source: Files, context: StageContext | None = None) -> Iterator[bytes]:
    return source.stream(source.artifacts()[0], context or StageContext())


def save(source: Files, to: Path, context: StageContext | None = None) -> Path:
    with open(to, "wb") as file:
        for chunk in stream(source, context):
            file.write(chunk)
    return to


def pieces(archive: Path, size: int = CHUNK) -> Iterator[bytes]:
    with open(archive, "rb") as file:
        while piece := file.read(size):
            yield piece


def restore(archive: Path, target: Path, overwrite: bool = False) -> Sequence[str]:
    """Restore with our own extractor; returns what it could not restore exactly."""
    source = files(archive)
    return source.restore(pieces(archive), source.artifacts()[0], target, overwrite)


def exactly(archive: Path, target: Path) -> None:
    assert restore(archive, target) == []


def gnu_tar(archive: Path, target: Path) -> None:
    target.mkdir()
    options = ["--xattrs", "--xattrs-include=*", "--acls", "-xp"]
    command = ["tar", *options, "-C", str(target), "-f", str(archive)]
    subprocess.run(command, check=True, capture_output=True)


EXTRACTORS: list[Any] = [pytest.param(exactly, id="ours"), pytest.param(gnu_tar, id="gnu-tar")]
Extract = Callable[[Path, Path], None]


def forged(place: Path, *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> Path:
    """An archive that our source would never make."""
    with tarfile.open(place / "forged.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            info, data = member if isinstance(member, tuple) else (member, b"")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return place / "forged.tar"


def item(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    return item(name, kind, linkname=to)
