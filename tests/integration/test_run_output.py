"""What a run shows: on a terminal, to a program, to continuous integration."""

from __future__ import annotations

import fcntl
import json
import os
import re
import termios
from pathlib import Path

import pytest

from tests.e2e.program import wait_for
from tests.integration.run_setup import PATIENCE, WAITING, Setup, pty

pytestmark = pytest.mark.integration

CANARY = "c4n4ry-S3cret"


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


OTHER = """\
  quick:
    source: {type: command, command: [sh, -c, 'while [ ! -e begun ]; do sleep 0.02; done; echo x']}
    fan_out: [{storage: nas}]
"""


class TestTerminal:
    def test_the_live_part_is_below_the_log_and_gone_at_the_end(self, setup: Setup) -> None:
        setup.configure(command=WAITING, more=OTHER)
        with pty(60, 20) as terminal:
            options = {"stderr": terminal.theirs, "env": {"TERM": "xterm"}}
            process = setup.start("--parallel", "2", **options)
            os.close(terminal.theirs)
            screen = lambda: terminal.display.screen  # noqa: E731
            terminal.read_until(
                lambda: (
                    any("quick" in line and "outcome" in line for line in screen())
                    and "  offsite" in screen()[-1]
                    and " 4 B " in screen()[-3]
                )
            )
            seen = screen()
            setup.go()
            while terminal.read():
                pass
            out, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0
            assert all(len(line) < 60 for line in seen[-3:])
            assert [line.split()[0] for line in seen[-3:]] == ["crm/crm", "nas", "offsite"]
            # At the end nothing is left of it, and no line of the log is lost.
            log = terminal.display.text
        assert "/s" not in log
        assert log.count("artifact committed") == 3
        assert "run finished" in log
        assert "[ok] crm: ok" in out.decode()
        assert "\x1b[3" in terminal.raw, "it is in colours"

    @pytest.mark.parametrize(
        ("environ", "arguments"),
        [({"NO_COLOR": "1"}, []), ({}, ["--no-color"]), ({"TERM": "dumb"}, [])],
    )
    def test_without_colours_there_are_none(
        self, environ: dict[str, str], arguments: list[str], setup: Setup
    ) -> None:
        setup.configure()
        with pty() as terminal:
            process = setup.start(
                "--progress", "off", *arguments, stderr=terminal.theirs, env=environ
            )
            os.close(terminal.theirs)
            while terminal.read():
                pass
            process.communicate(timeout=PATIENCE)
        assert "run finished" in terminal.raw
        assert "\x1b" not in terminal.raw

    def test_a_run_ends_with_its_terminal_though_it_has_a_log_file(self, setup: Setup) -> None:
        setup.configure(f"{{file: {setup.folder}/run.log}}", WAITING)
        with pty() as terminal:
            process = setup.start(
                stderr=terminal.theirs,
                stdin=terminal.theirs,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
            os.close(terminal.theirs)
            wait_for(lambda: setup.has("begun"), PATIENCE)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert "outcome=interrupted" in (setup.folder / "run.log").read_text()


class TestProgress:
    def test_json_is_an_object_a_line_and_nothing_else(self, setup: Setup) -> None:
        setup.configure(command=WAITING)
        process = setup.start("--progress", "json")
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(json.loads(line))
            if lines[-1]["event"] == "progressed":
                setup.go()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        progress = next(line for line in lines if line["event"] == "progressed")
        assert {"time", "run", "backup", "artifact", "seconds", "stages"} <= set(progress)
        assert progress["run"] == lines[0]["run"]
        assert [(stage["kind"], stage["bytes"]) for stage in progress["stages"]] == [
            ("source", 4),
            ("storage", 4),
            ("storage", 4),
        ]


class TestCi:
    def test_a_job_of_github_has_groups_annotations_and_a_summary(self, setup: Setup) -> None:
        setup.configure(
            f"{{file: {setup.folder}/run.log}}", 'echo "login with $PASSWORD failed" >&2; exit 3'
        )
        summary = setup.folder / "summary.md"
        environ = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_STEP_SUMMARY": str(summary),
            "CANARY": CANARY,
        }
        code, out, err = setup.run("--json", env=environ)
        assert code == 1
        assert json.loads(out)["outcome"] == "failed"
        lines = err.splitlines()
        start, end = lines.index("::group::backup crm"), lines.index("::endgroup::")
        assert any("backup finished" in line for line in lines[start:end])
        (annotation,) = [line for line in lines if line.startswith("::error ")]
        assert annotation.startswith("::error title=crm%3A failed::crm: ")
        assert "login with" in annotation
        assert "| crm | crm | nas | failed |" in summary.read_text()
        told = out + err + summary.read_text() + (setup.folder / "run.log").read_text()
        assert CANARY not in told

    def test_a_job_of_gitlab_has_sections(self, setup: Setup) -> None:
        setup.configure()
        code, out, err = setup.run(env={"GITLAB_CI": "true"})
        assert code == 0
        assert "[ok] crm: ok" in out
        starts = re.findall(r"section_start:\d+:(\w+)\[collapsed=true\]\r\x1b\[0Kbackup crm", err)
        assert starts == re.findall(r"section_end:\d+:(\w+)\r", err)
        assert len(starts) == 1

    def test_no_ci_is_as_anywhere(self, setup: Setup) -> None:
        setup.configure()
        code, _, err = setup.run("--no-ci", env={"GITHUB_ACTIONS": "true"})
        assert code == 0
        assert "::" not in err
        assert "\x1b" not in err, "nobody watches: no live part, no colours"
