"""Values from outside the configuration: files of variables, credentials, programs, keys."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.cli.main import main
from schemas import commands
from schemas.load import InvalidConfiguration, Loaded, load
from tests.unit.config_folder import MINIMAL, Folder

PATH = {"PATH": os.environ["PATH"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


def loaded(folder: Folder, value: str, environ: Mapping[str, str]) -> Loaded:
    """A configuration whose host is that, and which may run programs."""
    folder.write("pipeline.yaml", f"host: {value}\n" + MINIMAL)
    return load("pipeline.yaml", environ, allow_commands=True)


def refusal(folder: Folder, value: str, environ: Mapping[str, str] = PATH) -> str:
    with pytest.raises(InvalidConfiguration) as caught:
        loaded(folder, value, environ)
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (1, "host")
    return f"{problem.message}; {problem.hint}" if problem.hint else problem.message


class TestFilesOfVariables:
    @pytest.mark.parametrize("reference", ["${KEY}", "${KEY:-other}", "${KEY:?needed}"])
    def test_the_file_is_read_when_the_variable_is_not_set(
        self, folder: Folder, reference: str
    ) -> None:
        file = folder.write("secret", "from the file\n")
        found = loaded(folder, reference, {"KEY_FILE": str(file)})
        assert found.pipeline.host == "from the file"
        assert "from the file" in found.secrets

    def test_a_variable_that_is_set_wins(self, folder: Folder) -> None:
        for value in ("here", ""):
            found = loaded(folder, "x${KEY}", {"KEY": value, "KEY_FILE": "/does/not/exist"})
            assert found.pipeline.host == f"x{value}"

    def test_an_empty_one_names_no_file(self, folder: Folder) -> None:
        assert loaded(folder, "${KEY:-other}", {"KEY_FILE": ""}).pipeline.host == "other"
        assert refusal(folder, "${KEY}", {"KEY_FILE": ""}).startswith('variable "KEY" is not set')

    def test_a_relative_one_starts_where_the_program_does(
        self, folder: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder.write("sub/secret", "value")
        folder.write("conf/pipeline.yaml", "host: ${KEY}\n" + MINIMAL)
        monkeypatch.chdir(folder.path / "sub")
        found = load("../conf/pipeline.yaml", {"KEY_FILE": "secret"})
        assert found.pipeline.host == "value"

    def test_what_is_wrong_with_the_file_is_said_without_its_name(self, folder: Folder) -> None:
        what = 'the file that "KEY_FILE" names cannot be read: '
        said = refusal(folder, "${KEY}", {"KEY_FILE": "/does/not/exist"})
        assert said == what + "no such file or directory"
        assert refusal(folder, "${KEY}", {"KEY_FILE": "a\0b"}).startswith(what)


class TestCredentials:
    def test_one_of_systemd_is_read_and_kept_secret(self, folder: Folder) -> None:
        folder.write("credentials/db.password", "hidden-value\n")
        environ = {"CREDENTIALS_DIRECTORY": str(folder.path / "credentials")}
        found = loaded(folder, "x-${cred:db.password}", environ)
        assert found.pipeline.host == "x-hidden-value"
        assert "hidden-value" in found.secrets

    @pytest.mark.parametrize(
        ("reference", "said"),
        [
            ("${cred:none}", 'the credential "none" cannot be read: no such file or directory; '),
            ("${cred:../x}", '"${cred:...}" names no credential; write ${cred:NAME}'),
            ("${cred:}", '"${cred:...}" names no credential; write ${cred:NAME}'),
        ],
    )
    def test_what_is_no_credential_is_refused(
        self, folder: Folder, reference: str, said: str
    ) -> None:
        environ = {"CREDENTIALS_DIRECTORY": str(folder.path)}
        assert refusal(folder, reference, environ).startswith(said)

    def test_outside_of_a_unit_there_are_none(self, folder: Folder) -> None:
        assert refusal(folder, "${cred:db}") == (
            'there are no credentials: "CREDENTIALS_DIRECTORY" is not set; '
            "systemd sets it for a unit that has LoadCredential=db:/path"
        )

    def test_a_variable_of_that_name_is_still_one(self, folder: Folder) -> None:
        for name in ("cred", "cmd"):
            assert loaded(folder, f"${{{name}:-other}}", {name: "own"}).pipeline.host == "own"
            assert loaded(folder, f"${{{name}:-other}}", {}).pipeline.host == "other"


class TestCommands:
    @pytest.mark.parametrize(
        ("reference", "value"),
        [
            ('\'${cmd: [printf, "%s|", "a b", 1, $HOME]}\'', "a b|1|$HOME|"),
            ("${cmd:printf %s| 'a  b' c}", "a  b|c|"),
            ("x-${cmd:echo y}-z", "x-y-z"),
            ("${cmd:printf a$$$$b}", "a$$b"),
            ("${cmd:sh -c 'echo \"$$VALUE\"'}", "of the environment"),
        ],
    )
    def test_a_program_is_asked_without_a_shell(
        self, folder: Folder, reference: str, value: str
    ) -> None:
        found = loaded(folder, reference, {**PATH, "VALUE": "of the environment"})
        assert found.pipeline.host == value

    def test_what_it_prints_is_secret_and_asked_for_once(self, folder: Folder) -> None:
        folder.write("ask", "#!/bin/sh\necho once >> asked\necho hidden-value\n", 0o700)
        text = "${cmd:./ask}\nmodules: []\ndefaults: {schedule: '${cmd:./ask}'}"
        with pytest.raises(InvalidConfiguration, match="cron"):
            loaded(folder, text, PATH)
        assert (folder.path / "asked").read_text() == "once\n"
        assert "hidden-value" in loaded(folder, "${cmd:./ask}", PATH).secrets

    def test_nothing_is_run_unless_that_is_allowed(
        self, folder: Folder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder.write("pipeline.yaml", "host: ${cmd:touch ran}\n" + MINIMAL)
        for arguments in (["check", "pipeline.yaml"], ["run", "pipeline.yaml", "--dry-run"]):
            assert main(arguments) == 78
            assert capfd.readouterr().err.startswith(
                'pipeline.yaml:1:7: host: "${cmd:...}" would run a program\n'
                "    hint: give --allow-commands when you trust this file\n"
            )
        assert not (folder.path / "ran").exists()
        assert main(["check", "pipeline.yaml", "--allow-commands"]) == 78
        assert "printed nothing" in capfd.readouterr().err
        assert (folder.path / "ran").exists()

    @pytest.mark.parametrize(
        ("reference", "said"),
        [
            ("${cmd:}", '"${cmd:...}" is no command; write'),
            ("'${cmd: []}'", '"${cmd:...}" is no command; write'),
            ("'${cmd: [a, [b]]}'", '"${cmd:...}" is no command; write'),
            ("'${cmd: [a, }'", '"${cmd:...}" is no command; write'),
            ('${cmd:a "b}', '"${cmd:...}" is no command; write'),
            ("${cmd:echo ${HOME}}", '"${cmd:...}" takes no references; '),
            ("${cmd:none-such}", 'the program of "${cmd:...}" cannot be started: no such file'),
            ("${cmd:true}", 'the program of "${cmd:...}" printed nothing'),
            ("${cmd:sh -c 'kill -9 $$$$'}", 'the program of "${cmd:...}" failed with signal 9'),
            ("${cmd:yes}", 'the program of "${cmd:...}" printed more than 1MiB; '),
            ("${cmd:printf \\\\377}", 'the output of the program of "${cmd:...}" is not UTF-8'),
        ],
    )
    def test_what_goes_wrong_is_said(self, folder: Folder, reference: str, said: str) -> None:
        assert refusal(folder, reference).startswith(said)

    def test_its_last_words_are_shown_without_the_secret(self, folder: Folder) -> None:
        folder.write("file", "second-secret")
        folder.write(
            "ask",
            "#!/bin/sh\necho first-secret; echo lost >&2\n"
            'printf "bad first-secret\\033 and second-secret\\n" >&2; exit 3\n',
            0o700,
        )
        folder.write("pipeline.yaml", "host: ${file:file}${cmd:./ask}\n" + MINIMAL)
        with pytest.raises(InvalidConfiguration) as caught:
            load("pipeline.yaml", PATH, allow_commands=True)
        assert [problem.message for problem in caught.value.problems] == [
            'the program of "${cmd:...}" failed with exit code 3: bad [secret]? and [secret]'
        ]

    @pytest.mark.parametrize("script", ["sleep 1000 & sleep 1000", "exec >&- 2>&-; sleep 1000"])
    def test_one_that_does_not_end_is_ended_with_all_it_started(
        self, folder: Folder, script: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commands, "PATIENCE", 0.5)
        folder.write("ask", f"#!/bin/sh\nps -o pgid= $$ > group\n{script}\n", 0o700)
        assert refusal(folder, "${cmd:./ask}") == (
            'the program of "${cmd:...}" did not end within 0.5 s'
        )
        group = int((folder.path / "group").read_text())
        deadline = time.monotonic() + 30
        while alive(group):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def alive(group: int) -> bool:
    """Whether a process of the group still runs."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False


@pytest.fixture
def configured(folder: Folder, capfd: pytest.CaptureFixture[str]) -> Folder:
    """Backups that only the key in `key.txt` opens; there is none yet."""
    assert main(["keygen", "key.txt"]) == 0
    public = capfd.readouterr().out.strip()
    folder.write("data/file", "content")
    folder.write(
        "pipeline.yaml",
        f"""\
        name: identity-{os.getpid()}
        storages: {{here: {{type: local, path: {folder.path}/backups}}}}
        backups:
          data:
            source: {{type: files, paths: [{folder.path}/data]}}
            stages: [{{type: age, recipients: [{public}]}}]
            fan_out: [{{storage: here}}]
        """,
    )
    return folder


@pytest.fixture
def encrypted(configured: Folder, capfd: pytest.CaptureFixture[str]) -> Folder:
    """The same, with one."""
    assert main(["run", "pipeline.yaml", "-qq"]) == 0
    capfd.readouterr()
    return configured


RESTORE = ["restore", "pipeline.yaml", "--backup", "data", "--to"]


def key_of(folder: Folder) -> str:
    return (folder.path / "key.txt").read_text()


class TestPrivateKeys:
    def test_from_a_variable(self, encrypted: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", key_of(encrypted))
        arguments = ["verify", "pipeline.yaml", "--identity-env", "MY_KEY"]
        assert main(arguments) == 0
        assert main([*RESTORE, "back", "--identity-env", "MY_KEY"]) == 0
        (file,) = (encrypted.path / "back").rglob("file")
        assert file.read_text() == "content"

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (None, 'error: the variable "MY_KEY" of --identity-env is not set or empty\n'),
            (" ", 'error: the variable "MY_KEY" of --identity-env is not set or empty\n'),
            ("hunter2", "error: the variable of --identity-env is not a private key of age; "),
            ("# nothing", "error: the variable of --identity-env is not a private key of age; "),
        ],
    )
    @pytest.mark.usefixtures("configured")
    def test_a_variable_without_one_is_refused(
        self,
        capfd: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        value: str | None,
        said: str,
    ) -> None:
        if value is not None:
            monkeypatch.setenv("MY_KEY", value)
        assert main([*RESTORE, "back", "--identity-env", "MY_KEY"]) == 1
        assert capfd.readouterr().err.startswith(said)

    def test_typed_in_at_the_terminal_without_an_echo(self, encrypted: Folder) -> None:
        key = key_of(encrypted).splitlines()[-1]
        shown, code = at_terminal([*RESTORE, "back", "--identity-prompt"], key)
        assert code == 0, shown
        assert "private key" in shown
        assert key not in shown
        (file,) = (encrypted.path / "back").rglob("file")
        assert file.read_text() == "content"

    def test_without_a_terminal_nothing_is_asked(self, configured: Folder) -> None:
        # A session of its own has no terminal, whatever standard input is.
        read, write = os.pipe()
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "pipeline", *RESTORE, "back", "--identity-prompt"],
            {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, str(configured.path / "key.txt"), os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, write, 2),
            ],
            setsid=True,
        )
        os.close(write)
        with open(read) as pipe:
            said = pipe.read()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        assert said.startswith(
            "error: there is no terminal to ask for the private key\n"
            "    hint: give --identity or --identity-env\n"
        )


AT_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'pipeline', *sys.argv[1:]])\n"
)


def at_terminal(arguments: list[str], typed: str) -> tuple[str, int]:
    """Run the program at a terminal of its own; what it showed, and its exit code."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_TERMINAL, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    sent = False
    with open(ours, "r+b", buffering=0) as both:
        while data := _read(both):
            shown += data
            if not sent and b"): " in shown:
                both.write(typed.encode() + b"\n")
                sent = True
    return shown.decode(errors="replace"), process.wait()


def _read(terminal: io.FileIO) -> bytes:
    try:
        return terminal.read(4096) or b""
    except OSError:  # the other side is closed
        return b""
