"""Small things of the command line that need no archive to be tried."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from pipeline.catalog import at, parse_time
from pipeline.cli.main import main
from pipeline.errors import NxsError
from pipeline.report import format_seconds, format_size


def test_times_that_at_understands() -> None:
    noon = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
    for text in (
        "2026-11-23T12:00:00Z",
        "2026-11-23T12-00-00Z",
        "2026-11-23 12:00",
        "2026-11-23T13:00:00+01:00",
    ):
        assert parse_time(text) == noon
    with pytest.raises(NxsError, match="is not a time"):
        parse_time("yesterday")
    assert at([], "latest") == []


def test_sizes_and_times_read_well() -> None:
    assert [format_size(n) for n in (0, 1023, 1536, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 TiB",
    ]
    assert [format_seconds(n) for n in (0.44, 61, 7500)] == ["0.4 s", "1 m 1 s", "2 h 5 m"]


def test_keygen_never_replaces_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "key.txt"
    assert main(["keygen", str(path)]) == 0
    public = capsys.readouterr().out.strip()
    assert public.startswith("age1")
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    assert f"# public key: {public}\n" in before
    assert main(["keygen", str(path)]) == 1
    assert "never replaced" in capsys.readouterr().err
    assert path.read_text() == before


def test_an_env_file_gives_variables_that_are_not_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env").write_text("# comment\nexport ROOT='/from file'\nNAME=\"shop\"\n\n")
    config = tmp_path / "pipeline.yaml"
    config.write_text(
        "name: ${NAME}\n"
        "storages: {here: {type: local, path: '${ROOT}'}}\n"
        "backups: {a: {source: {type: stdin}, fan_out: [{storage: here}]}}\n"
    )
    config.chmod(0o600)
    monkeypatch.setenv("NAME", "not a plain name!")
    assert main(["check", str(config), "--env-file", str(tmp_path / "env")]) == 78
    assert "plain name" in capsys.readouterr().err
    monkeypatch.delenv("NAME")
    assert main(["check", str(config), "--env-file", str(tmp_path / "env")]) == 0
    (tmp_path / "env").write_text("what is this\n")
    assert main(["check", str(config), "--env-file", str(tmp_path / "env")]) == 78
    assert "line 1: is not NAME=VALUE" in capsys.readouterr().err
