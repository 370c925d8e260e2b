"""What `files` makes of its paths: artifacts and member names."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import Source
from schemas.sources import FilesSource
from stages.sources.files import Files


def build(*paths: object, **spec: Any) -> Source:
    """A source as a user writes it."""
    model = {"type": "files", "paths": [str(path) for path in paths], **spec}
    return Files(FilesSource.model_validate(model), "shop")


def read(source: Source, context: StageContext | None = None) -> bytes:
    return b"".join(source.stream(source.artifacts()[0], context or StageContext()))


def names_in(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


class TestFilesPlan:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for name in ("a/x", "a/y", "b/x", "b/.hidden"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "file").write_text(name)
        return tmp_path

    def plan(self, *paths: object, **spec: Any) -> list[str]:
        source = build(*paths, **spec)
        return [artifact.name for artifact in source.artifacts()]

    def named(self, root: Path, *paths: str) -> list[str]:
        return [str(root / path).strip("/").replace("/", "-") for path in paths]

    def test_globs_are_expanded_and_sorted(self, root: Path) -> None:
        assert self.plan(root / "?" / "x") == self.named(root, "a/x", "b/x")

    def test_two_stars_reach_any_depth(self, root: Path) -> None:
        found = self.plan(root / "**" / "file")
        assert found == self.named(root, "a/x/file", "a/y/file", "b/x/file")

    def test_what_is_found_twice_is_one_artifact(self, root: Path) -> None:
        assert self.plan(root / "a", root / "[a]", f"{root}/./a//") == self.named(root, "a")

    def test_an_existing_path_is_not_taken_for_a_glob(self, root: Path) -> None:
        (root / "[x]").mkdir()
        (root / "x").mkdir()
        assert self.plan(root / "[x]") == self.named(root, "[x]")

    @pytest.mark.parametrize("path", ["gone", "gone*", "a/*/gone"])
    def test_what_matches_nothing_is_an_error(self, root: Path, path: str) -> None:
        with pytest.raises(SourceError) as raised:
            self.plan(root / "a", root / path)
        assert str(raised.value) == f'nothing matches "{root / path}"'

    def test_a_path_with_two_dots_is_an_error(self, root: Path) -> None:
        with pytest.raises(SourceError, match=r'must not contain "\.\."'):
            self.plan(f"{root}/a/../b")

    def test_what_a_glob_finds_can_be_excluded(self, root: Path) -> None:
        assert self.plan(root / "*", exclude=["b"]) == self.named(root, "a")
        assert self.plan(root / "**" / "file", exclude=["y", f"{root}/b"]) == self.named(
            root, "a/x/file"
        )

    def test_a_glob_of_which_nothing_is_left_is_an_error(self, root: Path) -> None:
        with pytest.raises(SourceError, match="nothing matches"):
            self.plan(root / "b*", exclude=["b"])

    def test_what_is_named_is_not_excluded(self, root: Path) -> None:
        assert self.plan(root / "b", exclude=["b"]) == self.named(root, "b")

    def test_names_that_would_be_the_same_are_an_error(self, root: Path) -> None:
        (root / "a-x").mkdir()
        with pytest.raises(SourceError, match="would both be called"):
            self.plan(root / "a" / "x", root / "a-x")

    def test_a_single_artifact_is_named_after_the_backup(self, root: Path) -> None:
        assert self.plan(root / "a", root / "b", artifact="single") == ["shop"]

    def test_same_names_in_a_single_artifact_are_an_error(self, root: Path) -> None:
        with pytest.raises(SourceError, match="the same name in the archive"):
            self.plan(root / "a/x", root / "b/x", artifact="single", names="relative")

    def test_the_root_of_the_file_system_has_a_name(self) -> None:
        assert self.plan("/") == ["root"]

    def test_the_artifact_says_how_to_extract_it(self, root: Path) -> None:
        (artifact,) = build(root).artifacts()
        assert (artifact.suffix, artifact.min_size) == (".tar", 1)
        assert artifact.extract.startswith("tar ")


class TestFilesNames:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "srv/data/sub").mkdir(parents=True)
        (tmp_path / "srv/data/b").write_text("b")
        (tmp_path / "srv/data/sub/a").write_text("a")
        return tmp_path / "srv/data"

    def test_absolute_names_are_the_path_without_its_slash(self, root: Path) -> None:
        lead = str(root)[1:]
        names = names_in(read(build(root)))
        assert names == [lead, f"{lead}/b", f"{lead}/sub", f"{lead}/sub/a"]

    def test_relative_names_begin_with_the_last_part(self, root: Path) -> None:
        names = names_in(read(build(root, names="relative")))
        assert names == ["data", "data/b", "data/sub", "data/sub/a"]

    def test_a_file_can_be_a_root(self, root: Path) -> None:
        source = build(root / "b", names="relative")
        assert names_in(read(source)) == ["b"]

    def test_a_root_inside_of_another_is_not_archived_twice(self, root: Path) -> None:
        paths = [str(root), str(root / "**"), str(root / "sub")]
        names = names_in(read(build(*paths, artifact="single")))
        assert len(names) == len(set(names)) == 4

    def test_a_root_that_is_excluded_from_another_is_archived(self, root: Path) -> None:
        paths = [str(root), str(root / "sub")]
        source = build(*paths, exclude=["sub"], artifact="single")
        names = names_in(read(source))
        assert sorted(name.removeprefix(str(root)[1:]) for name in names) == [
            "",
            "/b",
            "/sub",
            "/sub/a",
        ]

    def test_a_root_that_is_a_symbolic_link_is_pointed_out(self, root: Path) -> None:
        (root / "link").symlink_to("sub")
        context = StageContext()
        read(build(root / "link"), context)
        assert context.findings.warnings == [
            f"{root}/link: a symbolic link, and only the link was saved"
        ]

    def test_owners_can_be_numbers_only(self, root: Path) -> None:
        data = read(build(root, numeric_owner=True))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert {(member.uname, member.gname) for member in archive} == {("", "")}
