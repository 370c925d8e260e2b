"""The lock, with real processes: contenders, sudden death, children, and names taken by others."""

from __future__ import annotations

import os
import re
import signal
import socket
import string
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import LockHeld
from pipeline.lock import SLOTS, RunLock, identity, socket_name

ROOT = Path(__file__).parents[2]
Key = tuple[str, str, str]
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")

HOLD = """
import sys
from pipeline.lock import RunLock
lock = RunLock(*sys.argv[1:4])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""

CONTEND = """
import os, sys
from pipeline.errors import LockHeld
from pipeline.lock import RunLock

def contend(start, results, done):
    os.read(start, 1)
    lock = RunLock(*sys.argv[1:4])
    try:
        lock.acquire()
        os.write(results, b"+")
    except LockHeld:
        os.write(results, b"-")
    os.read(done, 1)

start, go = os.pipe()
gather, results = os.pipe()
done, end = os.pipe()
children = []
for _ in range(50):
    child = os.fork()
    if child == 0:
        os.close(go)
        os.close(end)
        contend(start, results, done)
        os._exit(0)
    children.append(child)
os.close(go)
outcome = b""
while len(outcome) < 50:
    outcome += os.read(gather, 50)
os.close(end)
statuses = [os.waitpid(child, 0)[1] for child in children]
print(outcome.count(b"+"), outcome.count(b"-"), sum(statuses))
"""

SQUAT = """
import os, socket, sys
slots, backlog, uid, names = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
os.setuid(uid)
kept = []
for name in names[:slots]:
    taken = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    taken.bind(chr(0) + name)
    kept.append(taken)
    if backlog < 0:
        continue
    taken.listen(backlog)
    for _ in range(2 if backlog == 0 else 0):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        client.connect_ex(chr(0) + name)
        kept.append(client)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def key(request: pytest.FixtureRequest) -> Key:
    """A backup of its own for each test and each test run."""
    return ("shop", "web-1", f"{request.node.name}-{os.getpid()}")


@contextmanager
def program(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program that has said `held` and ends with its standard input."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


@contextmanager
def squatter(key: Key, slots: int = 1, backlog: int = 5, uid: int = NOBODY) -> Iterator[None]:
    """Another user who has taken the first names of the lock.

    Args:
        backlog: 0 fills the backlog as well, so that nobody can connect; -1 never listens.
    """
    names = [socket_name(*key, slot)[1:] for slot in range(SLOTS)]
    with program(SQUAT, str(slots), str(backlog), str(uid), *names):
        yield


def is_held(key: Key) -> bool:
    try:
        with RunLock(*key):
            return False
    except LockHeld:
        return True


def test_a_second_run_is_refused_and_told_who_has_the_lock(key: Key) -> None:
    with RunLock(*key), pytest.raises(LockHeld) as refusal:
        RunLock(*key).acquire()
    assert str(refusal.value) == f'another run of "{key[2]}" is under way (pid {os.getpid()})'


def test_another_process_is_named_by_its_pid(key: Key) -> None:
    with program(HOLD, *key) as holder, pytest.raises(LockHeld, match=rf"\(pid {holder.pid}\)$"):
        RunLock(*key).acquire()


def test_it_is_free_again_after_release(key: Key) -> None:
    lock = RunLock(*key)
    lock.release()
    for _ in range(3):
        lock.acquire()
        assert is_held(key)
        lock.release()
        lock.release()
        assert not is_held(key)


def test_it_is_free_again_after_an_error_inside(key: Key) -> None:
    with pytest.raises(ZeroDivisionError), RunLock(*key):
        _ = 1 / 0
    assert not is_held(key)


def test_a_refused_contender_takes_nothing_with_it(key: Key) -> None:
    holder, contender = RunLock(*key), RunLock(*key)
    holder.acquire()
    with pytest.raises(LockHeld):
        contender.acquire()
    contender.release()
    assert is_held(key)
    holder.release()
    contender.acquire()
    contender.release()


@pytest.mark.parametrize(
    "other",
    [
        ("shop", "web-1", "files"),
        ("shop", "web-2", "db"),
        ("blog", "web-1", "db"),
        ("shopw", "eb-1", "db"),
        ("shop", "web-1d", "b"),
    ],
    ids=["backup", "host", "project", "moved-letter", "other-moved-letter"],
)
def test_different_backups_do_not_exclude_each_other(other: Key) -> None:
    with RunLock("shop", "web-1", "db"), RunLock(*other):
        assert is_held(("shop", "web-1", "db"))
        assert is_held(other)


def test_sudden_death_frees_it(key: Key) -> None:
    with program(HOLD, *key) as holder:
        assert is_held(key)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert not is_held(key)


def test_a_child_program_that_outlives_us_does_not_hold_it(key: Key) -> None:
    leave_a_child = HOLD.replace(
        "print(",
        "import subprocess\n"
        "child = subprocess.Popen(['cat'], close_fds=False, stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\nprint(",
    )
    with subprocess.Popen(
        [sys.executable, "-c", leave_a_child, *key],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        orphan = int(holder.stdout.readline())
        assert holder.stdout.readline() == "held\n"
        assert is_held(key)
        holder.kill()
        holder.wait()
        os.kill(orphan, 0)  # still there, and it ends with the pipe
        assert not is_held(key)


def test_of_50_threads_one_wins(key: Key) -> None:
    locks = [RunLock(*key) for _ in range(50)]
    barrier, outcomes = threading.Barrier(50), list[str]()

    def contend(lock: RunLock) -> None:
        barrier.wait()
        try:
            lock.acquire()
            outcomes.append("won")
        except LockHeld:
            outcomes.append("refused")

    threads = [threading.Thread(target=contend, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for lock in locks:
        lock.release()
    assert sorted(outcomes) == ["refused"] * 49 + ["won"]


def contend(key: Key) -> str:
    """Winners, refused and failed of 50 processes that start at once."""
    command = [sys.executable, "-c", CONTEND, *key]
    return subprocess.check_output(command, cwd=ROOT, text=True).strip()


def test_of_50_processes_one_wins(key: Key) -> None:
    assert contend(key) == "1 49 0"


def test_50_processes_are_refused_while_another_holds_it(key: Key) -> None:
    with RunLock(*key):
        assert contend(key) == "0 50 0"


def fill_backlog(lock: RunLock, key: Key, contenders: int) -> None:
    """Have more contenders than the listening socket takes, as nobody accepts them."""
    assert lock._socket is not None
    lock._socket.listen(3 if contenders else 100)
    for _ in range(contenders):
        with pytest.raises(LockHeld, match="is under way"):
            RunLock(*key).acquire()


def test_more_contenders_than_the_backlog_takes_are_refused(key: Key) -> None:
    with RunLock(*key) as holder:
        fill_backlog(holder, key, contenders=20)
    assert not is_held(key)


def test_one_of_us_who_never_listens_counts_as_a_run(key: Key) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as hesitant:
        hesitant.bind(socket_name(*key, 0))
        assert is_held(key)
    assert not is_held(key)


@needs_root
@pytest.mark.parametrize("backlog", [5, 0, -1], ids=["listens", "is-full", "never-listens"])
def test_a_name_taken_by_another_user_is_stepped_over(key: Key, backlog: int) -> None:
    ours = rf"under way \(pid {os.getpid()}\)"
    with squatter(key, 2, backlog), RunLock(*key), pytest.raises(LockHeld, match=ours):
        RunLock(*key).acquire()


@needs_root
@pytest.mark.parametrize("asked", [0, 20], ids=["at-once", "with-a-full-backlog"])
def test_a_run_that_had_to_step_aside_is_seen_after_the_stranger_left(key: Key, asked: int) -> None:
    lock = RunLock(*key)
    with squatter(key):
        lock.acquire()
        fill_backlog(lock, key, asked)
    assert is_held(key)
    lock.release()
    assert not is_held(key)


@needs_root
def test_all_names_taken_by_another_user_is_said(key: Key) -> None:
    with squatter(key, slots=SLOTS), pytest.raises(LockHeld) as refusal:
        RunLock(*key).acquire()
    assert refusal.value.message == (
        f'the lock of "{key[2]}" cannot be taken: other users have all its names'
    )
    assert refusal.value.hint is not None
    assert refusal.value.hint.endswith(f": {NOBODY}")


@needs_root
def test_a_run_of_root_counts_for_everyone(key: Key) -> None:
    drop = HOLD.replace("lock =", f"import os; os.setuid({NOBODY})\nlock =", 1)
    with RunLock(*key):
        result = subprocess.run(
            [sys.executable, "-c", drop, *key],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert "LockHeld" in result.stderr
    assert result.stdout == ""


def test_nothing_is_written(key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with RunLock(*key):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("odd", ["\udcff", "x" * 10_000, "a\0b", ""], ids=ascii)
def test_any_name_can_be_locked(odd: str) -> None:
    with RunLock(odd, odd, odd):
        assert is_held((odd, odd, odd))


def test_the_identity_is_short_stable_and_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert identity("shop", "web-1", "crm-db") == "5c8ec787"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert identity("shop", "web-1", "crm-db") != "5c8ec787"
    assert identity("shop", "web-1", "crm") != identity("shop", "web-1c", "rm")
    assert set(identity("a", "b", "c")) <= set(string.hexdigits.lower())
    assert re.fullmatch(r"\0nxs-backup-[0-9a-f]{64}-15", socket_name("a", "b", "c", 15))
