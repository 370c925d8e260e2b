"""Every transform through its contract, and what is particular to each."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline import registry
from pipeline.context import StageContext
from pipeline.errors import Aborted, TransformError
from pipeline.stage import CHUNK
from schemas.manifest import ManifestStage
from stages.transforms.zstd import default_threads
from tests.contracts.gpg_home import FINGERPRINT, PRIVATE, PUBLIC, gpg_home
from tests.contracts.transform import (
    Case,
    TransformContract,
    apply,
    build,
    children,
    close,
    cut,
    invert,
    leaving_nothing,
    sample,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KEYS = Path(__file__).with_name("age_keys.txt")
RECIPIENTS = [
    line.rpartition(" ")[2] for line in KEYS.read_text().splitlines() if "public key" in line
]
AGE = {"type": "age", "recipients": RECIPIENTS, "identity_file": str(KEYS)}
AGE_WRITES = ["age", *(word for key in RECIPIENTS for word in ("-r", key))]
GPG = {"type": "gpg", "recipient_files": [str(PUBLIC)]}
GPG_WRITES = ["gpg", "-q", "--batch", "-e", "-f", str(PUBLIC), "--trust-model", "always"]
GZIP = {"type": "filter", "command": ["gzip", "-1"], "inverse": ["gzip", "-d"], "suffix": ".gz"}


@pytest.fixture(autouse=True, scope="module")
def private_key_of_gpg() -> Iterator[None]:
    """It can only be in a home directory, where gpg and its agent look for it."""
    with gpg_home(PRIVATE) as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(home))
        yield


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case({"type": "zstd"}, tool_writes=["zstd", "-3"]), id="zstd"),
        pytest.param(Case({"type": "zstd", "level": 1, "threads": 2}), id="zstd-threads"),
        pytest.param(
            Case({"type": "zstd", "long": True}, tool_writes=["zstd", "--long=27"]), id="zstd-long"
        ),
        pytest.param(Case({"type": "gzip"}, tool_writes=["gzip"]), id="gzip"),
        pytest.param(Case({"type": "xz", "level": 0}, tool_writes=["xz", "-1"]), id="xz"),
        pytest.param(Case({"type": "lz4"}, tool_writes=["lz4"]), id="lz4"),
        pytest.param(Case({"type": "lz4", "level": 3}), id="lz4-high"),
        pytest.param(Case(AGE, tool_writes=AGE_WRITES), id="age"),
        pytest.param(Case(GPG, tool_writes=GPG_WRITES), id="gpg"),
        pytest.param(
            Case({"type": "throttle", "rate": "100GB/s"}, sees_damage=False), id="throttle"
        ),
        pytest.param(Case(GZIP, takes_zeros=True, tool_writes=["gzip"]), id="filter"),
    ],
)
class TestTransforms(TransformContract):
    pass


def frames(chunks: list[bytes], start: Any) -> list[int]:
    """Plain sizes of the frames of a stored stream."""
    sizes = []
    rest = b"".join(chunks)
    while rest:
        decoder = start()
        sizes.append(len(decoder.decompress(rest)))
        assert decoder.eof
        rest = decoder.unused_data
    return sizes


class TestZstd:
    def test_a_new_frame_begins_every_64_mib(self) -> None:
        block = bytes(CHUNK)
        stored = apply(build({"type": "zstd", "level": 1}), (block for _ in range(130)))
        assert frames(stored, zstd.ZstdDecompressor) == [64 << 20, 64 << 20, 2 << 20]

    def test_a_whole_number_of_frames_has_no_empty_one_after_it(self) -> None:
        stored = apply(build({"type": "zstd", "level": 1}), (bytes(3 << 20) for _ in range(64)))
        assert frames(stored, zstd.ZstdDecompressor) == [64 << 20] * 3

    def test_frames_carry_a_checksum(self) -> None:
        stored = b"".join(apply(build({"type": "zstd"}), [sample(1000)]))
        assert stored[4] & 0b100  # Content_Checksum_flag of the frame header, RFC 8878

    @pytest.mark.parametrize(
        ("processors", "threads"), [(1, 0), (2, 0), (3, 2), (4, 3), (5, 4), (64, 4)]
    )
    def test_threads_leave_a_processor_for_the_others(self, processors: int, threads: int) -> None:
        assert default_threads(processors) == threads

    def test_a_stream_cut_between_frames_is_whole_to_the_format(self) -> None:
        """Why the manifest carries the size."""
        stored = apply(build({"type": "zstd"}), [b"x"])
        assert invert(build({"type": "zstd"}), stored * 3) == b"xxx"


class TestGzip:
    def test_members_hold_a_mebibyte(self) -> None:
        stored = apply(build({"type": "gzip"}), cut(sample(3 * CHUNK + 5), 700_000))
        assert frames(stored, lambda: zlib.decompressobj(31)) == [CHUNK, CHUNK, CHUNK, 5]

    @pytest.mark.parametrize("level", [1, 9, 12])
    def test_levels(self, level: int) -> None:
        transform = build({"type": "gzip", "level": level})
        assert invert(transform, apply(transform, [sample(300_000)])) == sample(300_000)


class TestLz4:
    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "lz4", None)
        monkeypatch.setitem(sys.modules, "lz4.frame", None)
        transform = build({"type": "lz4"})
        with pytest.raises(TransformError, match='"lz4" is not installed'):
            transform.probe()
        with pytest.raises(TransformError, match='"lz4" is not installed'):
            apply(transform, [b"x"])


CANARY = "canary pass phrase"
PASSPHRASE = {"type": "gpg", "passphrase": CANARY}
KEY = ["--batch", "--quiet", "--passphrase", CANARY, "--quick-generate-key"]


def gpg(*arguments: str | Path, data: bytes = b"") -> bytes:
    done = subprocess.run(["gpg", "--batch", "-q", *arguments], input=data, stdout=-1, check=True)
    return done.stdout


class TestGpg:
    def test_a_passphrase_is_all_it_takes(self, tmp_path: Path) -> None:
        plain = sample(3 * CHUNK)
        stored = apply(build(PASSPHRASE), cut(plain, CHUNK))
        assert invert(build(PASSPHRASE), stored) == plain
        (tmp_path / "word").write_text(CANARY)
        word = ["--pinentry-mode", "loopback", "--passphrase-file", tmp_path / "word"]
        assert gpg(*word, "-d", data=b"".join(stored)) == plain
        assert (
            invert(build(PASSPHRASE), [gpg(*word, "-c", "--s2k-count", "65536", data=plain)])
            == plain
        )

    def test_a_wrong_passphrase_is_refused_without_telling_it(self) -> None:
        stored = apply(build(PASSPHRASE), [b"x"])
        with pytest.raises(TransformError, match="Bad session key") as raised:
            invert(build({**PASSPHRASE, "passphrase": CANARY + "!"}), stored)
        assert CANARY not in str(raised.value)

    def test_the_passphrase_is_in_no_argument_and_no_variable(self) -> None:
        before = children()
        stored = build(PASSPHRASE).apply((sample(CHUNK) for _ in range(64)), StageContext())
        assert next(stored)
        (pid,) = children() - before
        for where in ("cmdline", "environ"):
            assert CANARY.encode() not in Path(f"/proc/{pid}/{where}").read_bytes()
        close(stored)

    @pytest.mark.parametrize("spec", [GPG, PASSPHRASE], ids=["key-file", "passphrase"])
    def test_encryption_needs_no_home_and_leaves_nothing(
        self, spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("GNUPGHOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert apply(build(spec), [b"x"])
        assert build(spec).probe()[0].startswith("gpg (GnuPG) ")
        if "passphrase" in spec:
            assert invert(build(spec), apply(build(spec), [b"x"])) == b"x"
        assert list(tmp_path.iterdir()) == []

    def test_keys_of_a_keyring_are_named_by_fingerprint(self) -> None:
        spaced = " ".join(cut_text(FINGERPRINT.lower(), 4))
        with gpg_home(PUBLIC) as home:
            transform = build({"type": "gpg", "recipients": [spaced], "home": str(home)})
            assert transform.probe()[0].endswith(" encrypts to 1 public key")
            stored = apply(transform, [b"x"])
            assert transform.can_invert() == f'there is no private key in "{home}"'
            with pytest.raises(TransformError, match="No secret key"):
                invert(transform, stored)
        assert invert(build(GPG), stored) == b"x"

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ({"recipients": ["A" * 40]}, "No public key"),
            ({"recipient_files": ["/no/such.asc"]}, "No such file"),
            ({"recipient_files": [str(KEYS)]}, "no valid OpenPGP data"),
        ],
    )
    def test_a_key_that_is_not_there_is_found_by_the_probe(
        self, spec: dict[str, Any], message: str
    ) -> None:
        transform = build({"type": "gpg", **spec})
        for way in (transform.probe, lambda: apply(transform, [b"x"])):
            with pytest.raises(TransformError, match=message):
                way()

    def test_an_expired_key_is_refused(self) -> None:
        with gpg_home() as home:
            past = ["--faked-system-time", "20200101T000000"]
            at = ["--homedir", home]
            gpg(
                *at,
                *past,
                "--passphrase",
                "",
                "--quick-generate-key",
                "old",
                "rsa2048",
                "encr",
                "1d",
            )
            listed = gpg(*at, "--with-colons", "--list-keys").decode()
            fingerprint = next(line for line in listed.splitlines() if line.startswith("fpr"))
            spec = {"recipients": [fingerprint.split(":")[9]], "home": str(home)}
            with pytest.raises(TransformError, match="Unusable public key"):
                build({"type": "gpg", **spec}).probe()

    def test_a_locked_private_key_is_unlocked_or_refused_at_once(self) -> None:
        with gpg_home() as home:
            locked = ["--homedir", home, "--pinentry-mode", "loopback", *KEY]
            gpg(*locked, "locked", "future-default", "default", "never")
            listed = gpg("--homedir", home, "--with-colons", "--list-keys").decode()
            fingerprint = next(line for line in listed.splitlines() if line.startswith("fpr"))
            spec = {"recipients": [fingerprint.split(":")[9]], "home": str(home), "type": "gpg"}
            # The agent remembers what it was told when the key was made.
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=True)
            (home / "asker").write_text(f"#!/bin/sh\ntouch {home}/asked\nexit 1\n")
            (home / "asker").chmod(0o755)
            with open(home / "gpg-agent.conf", "a") as settings:
                settings.write(f"pinentry-program {home}/asker\n")
            stored = apply(build(spec), [b"x"])
            with pytest.raises(TransformError, match="decryption failed"):
                invert(build(spec), stored)
            assert not (home / "asked").exists(), "nobody is there to answer"
            assert invert(build({**spec, "key_passphrase": CANARY}), stored) == b"x"

    def test_settings_that_are_gone_are_not_needed_to_go_back(self) -> None:
        stored = apply(build(GPG), [b"x"])
        stage = ManifestStage(type="gpg", suffix=".gpg", undo="gpg -q -d")
        assert invert(registry.make_inverse(stage, None), stored) == b"x"

    def test_a_stream_that_gpg_takes_for_whole_and_is_not_is_refused(self) -> None:
        """Cut within its first packet: gpg exits with 0, and has said nothing."""
        stored = b"".join(apply(build(GPG), [b"x"]))[:5]
        assert gpg("-d", data=stored) == b""
        with pytest.raises(TransformError, match="damaged, or no gpg made it"):
            invert(build(GPG), [stored])

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ({}, "needs recipients, recipient_files or a passphrase"),
            ({"recipients": ["ops@example.net"]}, "must be the fingerprint of a key"),
            ({"recipients": ["4390F7518C8CC487"]}, "must be the fingerprint of a key"),
            ({"recipient_files": ["x"], "passphrase": "y"}, "not both"),
            ({"passphrase": "x\ny"}, "must be one line"),
            ({"passphrase": ""}, "must be one line that is not empty"),
            ({"passphrase": "x", "key_passphrase": "y"}, "key_passphrase has no use"),
        ],
    )
    def test_settings_that_cannot_work_are_refused(
        self, spec: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValidationError, match=message):
            build({"type": "gpg", **spec})


def cut_text(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


class TestThrottle:
    def test_it_keeps_the_rate(self) -> None:
        slept: list[float] = []
        context = StageContext()
        context.teardown.sleep = slept.append  # type: ignore[assignment, method-assign]
        transform = build({"type": "throttle", "rate": "1MB/s"})
        chunks = list(transform.apply([bytes(CHUNK)] * 3, context))
        # Nobody sleeps here, so the debt grows by what each piece costs.
        assert max(slept) == pytest.approx(3 * CHUNK / 10**6, abs=0.5)
        assert max(map(len, chunks)) <= 10**6 / 8

    def test_it_stops_sleeping_when_the_run_is_stopped(self) -> None:
        context = StageContext()
        transform = build({"type": "throttle", "rate": "1kB/s"})
        threading.Timer(0.1, context.teardown.abort).start()
        with pytest.raises(Aborted):
            list(transform.apply([bytes(CHUNK)], context))

    def test_a_pause_earns_one_second_at_most(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        slept: list[float] = []
        context = StageContext()
        context.teardown.sleep = slept.append  # type: ignore[assignment, method-assign]

        def after_a_pause() -> Iterator[bytes]:
            yield bytes(1000)
            clock[0] += 100
            yield bytes(3000)

        transform = build({"type": "throttle", "rate": "1kB/s"})
        assert len(b"".join(transform.apply(after_a_pause(), context))) == 4000
        assert max(slept) == pytest.approx(2.0)


class TestFilter:
    def test_without_an_inverse_there_is_no_way_back(self) -> None:
        transform = build({"type": "filter", "command": ["cat"]})
        assert transform.can_invert() == 'no "inverse" is given for the filter "cat"'
        assert transform.undo == "INVERSE_OF_cat"
        with pytest.raises(TransformError, match="inverse"):
            invert(transform, [b"x"])

    def test_the_environment_reaches_the_program_and_no_message(self) -> None:
        script = 'tr a "$LETTER"; echo "using $TOKEN" >&2; exit $CODE'
        spec = {"type": "filter", "command": ["sh", "-c", script]}
        good = build({**spec, "env": {"LETTER": "b", "CODE": "0"}})
        assert apply(good, [b"banana"]) == [b"bbnbnb"]
        bad = build({**spec, "env": {"LETTER": "b", "CODE": "3", "TOKEN": "very-secret"}})
        with pytest.raises(TransformError, match=r'^"sh" failed with exit code 3: using \*\*\*$'):
            apply(bad, [b"banana"])

    @pytest.mark.parametrize("size", [100, 10 * CHUNK])
    def test_unread_input_is_an_error(self, size: int) -> None:
        transform = build({"type": "filter", "command": ["head", "-c", "10"]})
        with leaving_nothing(), pytest.raises(TransformError, match="without reading all"):
            apply(transform, cut(bytes(size), CHUNK))

    def test_an_abort_ends_a_program_that_hangs(self) -> None:
        context = StageContext()
        transform = build({"type": "filter", "command": ["sh", "-c", "cat; sleep 1000"]})
        with leaving_nothing():
            timer = threading.Timer(0.2, context.teardown.abort)
            timer.start()
            with pytest.raises(Aborted):
                list(transform.apply([b"x"], context))
            timer.join()

    def test_it_starts_in_its_directory(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("#!/bin/sh\ncat; pwd\n")
        (tmp_path / "mine").chmod(0o755)
        transform = build({"type": "filter", "command": ["./mine"], "cwd": str(tmp_path)})
        assert transform.probe() == [f'"./mine" is "{tmp_path}/./mine"']
        assert apply(transform, [b"x"]) == [f"x{tmp_path}\n".encode()]

    def test_a_directory_that_is_missing_is_named(self) -> None:
        transform = build({"type": "filter", "command": ["cat"], "cwd": "/no/such"})
        for way in (transform.probe, lambda: apply(transform, [b"x"])):
            with pytest.raises(TransformError, match='directory "/no/such" does not exist'):
                way()

    def test_other_exit_codes_may_be_good_but_not_on_the_way_back(self) -> None:
        ends_with_one = ["sh", "-c", "cat; exit 1"]
        spec = {"type": "filter", "command": ends_with_one, "inverse": ends_with_one}
        transform = build({**spec, "ok_exit_codes": [0, 1]})
        assert apply(transform, [b"x"]) == [b"x"]
        with pytest.raises(TransformError, match="exit code 1"):
            invert(transform, [b"x"])
        with pytest.raises(TransformError, match="exit code 1"):
            apply(build(spec), [b"x"])

    def test_one_that_takes_too_long_is_ended(self) -> None:
        command = ["sh", "-c", "cat; sleep 1000"]
        transform = build({"type": "filter", "command": command, "timeout": "300ms"})
        with leaving_nothing(), pytest.raises(TransformError, match=r"did not end within 0\.3 s"):
            apply(transform, [b"x"])

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
    def test_it_runs_as_another_user(self) -> None:
        command = ["sh", "-c", "cat; id -un"]
        transform = build({"type": "filter", "command": command, "user": "nobody"})
        assert apply(transform, [b"x"]) == [b"xnobody\n"]

    def test_a_user_that_does_not_exist_is_found_by_the_probe(self) -> None:
        transform = build({"type": "filter", "command": ["cat"], "user": "nobody-at-all"})
        with pytest.raises(TransformError, match='no user "nobody-at-all"'):
            transform.probe()

    def test_a_program_that_is_missing_is_found_by_the_probe(self) -> None:
        transform = build({"type": "filter", "command": ["cat"], "inverse": ["no-such-program"]})
        with pytest.raises(TransformError, match='"no-such-program" was not found'):
            transform.probe()
