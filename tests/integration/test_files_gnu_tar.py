"""`files` against what GNU tar makes of the same tree, member by member.

`NXS_TEST_TREE=/usr` compares a larger tree than the default.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from stages.sources._files.acl import acl_bytes
from tests import tree
from tests.archives import WithPlace, files, save

pytestmark = pytest.mark.integration

REAL = Path(os.environ.get("NXS_TEST_TREE", "/usr/share/doc"))


def gnu_archive(root: Path, to: Path) -> Path:
    options = ["--format=pax", "--xattrs", "--xattrs-include=*", "--acls", "--sparse"]
    command = ["tar", *options, "-cf", to, "-C", root.parent, root.name]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return to


def members(archive: Path) -> dict[bytes, dict[str, object]]:
    """Everything that the members of an archive say, by name."""
    found: dict[bytes, dict[str, object]] = {}
    with tarfile.open(archive, errorlevel=2, encoding="utf-8") as opened:
        for member in opened:
            name = os.fsencode(member.name)
            # Which of its names has the content of a file is up to the order of the archive.
            said = found[_first(found, member)] if member.islnk() else _said(opened, member)
            found[name] = said
    return found


def _first(found: dict[bytes, dict[str, object]], member: tarfile.TarInfo) -> bytes:
    target = os.fsencode(member.linkname)
    assert target in found, "a hard link comes after the file"
    return target


def _said(opened: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, object]:
    content = opened.extractfile(member) if member.isreg() else None
    return {
        "kind": tarfile.REGTYPE if member.isreg() else member.type,
        "mode": oct(member.mode),
        "owner": (member.uid, member.gid, member.uname, member.gname),
        "size": member.size,
        "mtime": member.pax_headers.get("mtime", str(int(member.mtime))).rstrip("0").rstrip("."),
        "link": member.linkname if member.issym() else "",
        "device": (member.devmajor, member.devminor) if member.isdev() else None,
        "pax": _attributes(member),
        "sparse": member.issparse(),
        "content": _digest(content) if content and member.size < 1 << 30 else None,
    }


def _digest(content: object) -> str:
    digest = sha256()
    while piece := content.read(1 << 20):  # type: ignore[attr-defined]
        digest.update(piece)
    return digest.hexdigest()


def _attributes(member: tarfile.TarInfo) -> dict[str, object]:
    """ACLs are compared by what they mean: GNU tar names users, and adds the form of the kernel."""
    return {
        key: acl_bytes(os.fsencode(value)) if key.startswith("SCHILY.acl.") else value
        for key, value in member.pax_headers.items()
        if key.startswith(("SCHILY.xattr.", "SCHILY.acl."))
        and not key.startswith("SCHILY.xattr.system.posix_acl_")
    }


class TestAgainstGnuTar(WithPlace):
    def compare(self, root: Path, place: Path) -> None:
        theirs = members(gnu_archive(root, place / "theirs.tar"))
        ours = members(save(files(root), place / "ours.tar"))
        assert ours.keys() == theirs.keys()
        differing = {
            name: {
                key: (said[key], theirs[name][key])
                for key in said
                if said[key] != theirs[name][key]
            }
            for name, said in ours.items()
            if said != theirs[name]
        }
        assert differing == {}

    def test_a_real_tree(self, place: Path) -> None:
        self.compare(REAL, place)

    def test_the_worst_tree(self, place: Path) -> None:
        tree.build(place / "tree")
        self.compare(place / "tree", place)
