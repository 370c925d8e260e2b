"""Ours is read by the standard tools and theirs by us, where the contract suite does not look."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from pipeline.stage import CHUNK
from tests.contracts.test_transforms import AGE, AGE_WRITES, KEYS, RECIPIENTS
from tests.contracts.transform import apply, build, cut, invert, leaving_nothing, sample

pytestmark = pytest.mark.integration

SIZES = [0, 1, 65535, 65536, 65537, CHUNK, 3 * CHUNK + 17]
PASSPHRASE = "correct horse battery staple"


def tool(argv: list[str], data: bytes) -> bytes:
    done = subprocess.run(argv, input=data, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def tool_with_terminal(argv: list[str], answers: list[str], output: Path) -> None:
    """Run a program that asks for a passphrase on its terminal; it writes `output`."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(argv[0], argv)
    for answer in answers:
        said = b""
        while not said.rstrip().endswith(b":"):
            said += os.read(terminal, 1000)
        os.write(terminal, answer.encode() + b"\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert output.exists()


class TestAge:
    @pytest.mark.parametrize("size", SIZES)
    def test_the_tool_decrypts_ours(self, size: int) -> None:
        stored = b"".join(apply(build(AGE), cut(sample(size), CHUNK)))
        assert tool(["age", "-d", "-i", str(KEYS)], stored) == sample(size)

    @pytest.mark.parametrize("size", SIZES)
    def test_we_decrypt_what_the_tool_wrote(self, size: int) -> None:
        stored = tool(AGE_WRITES, sample(size))
        assert invert(build(AGE), cut(stored, CHUNK)) == sample(size)

    def test_sizes_agree(self) -> None:
        """The same header and payload, byte for byte but for what is random."""
        ours = b"".join(apply(build(AGE), [sample(200_000)]))
        assert abs(len(ours) - len(tool(AGE_WRITES, sample(200_000)))) <= 100

    def test_recipients_files_are_read_alike(self, tmp_path: Path) -> None:
        keys = tmp_path / "recipients"
        keys.write_text("# who may restore\n\n" + "\n".join(RECIPIENTS) + "\n")
        ours = build({"type": "age", "recipients_file": str(keys), "identity_file": str(KEYS)})
        assert tool(["age", "-d", "-i", str(KEYS)], b"".join(apply(ours, [b"hello"]))) == b"hello"
        assert invert(ours, [tool(["age", "-R", str(keys)], b"hello")]) == b"hello"

    def test_the_tool_decrypts_ours_with_a_passphrase(self, tmp_path: Path) -> None:
        transform = build({"type": "age", "passphrase": PASSPHRASE})
        stored, plain = tmp_path / "stored.age", tmp_path / "plain"
        stored.write_bytes(b"".join(apply(transform, [sample(70_000)])))
        tool_with_terminal(["age", "-d", "-o", str(plain), str(stored)], [PASSPHRASE], plain)
        assert plain.read_bytes() == sample(70_000)

    def test_we_decrypt_what_the_tool_wrote_with_a_passphrase(self, tmp_path: Path) -> None:
        stored, plain = tmp_path / "stored.age", tmp_path / "plain"
        plain.write_bytes(sample(70_000))
        answers = [PASSPHRASE, PASSPHRASE]
        tool_with_terminal(["age", "-p", "-o", str(stored), str(plain)], answers, stored)
        transform = build({"type": "age", "passphrase": PASSPHRASE})
        assert invert(transform, cut(stored.read_bytes(), CHUNK)) == sample(70_000)


class TestZstd:
    @pytest.mark.parametrize("long", [False, True])
    def test_the_tool_reads_many_frames_without_options(self, long: bool) -> None:
        """A window above 128 MiB would make it refuse."""
        transform = build({"type": "zstd", "level": 1, "long": long})
        blocks = [sample(CHUNK), bytes(CHUNK)]
        stored = b"".join(apply(transform, (blocks[n % 2] for n in range(130))))
        tool(["zstd", "--test", "-q"], stored)
        assert tool(["zstd", "-d"], stored) == b"".join(blocks) * 65

    @pytest.mark.parametrize("level", [1, 19])
    def test_levels(self, level: int) -> None:
        stored = b"".join(apply(build({"type": "zstd", "level": level}), [sample(CHUNK)]))
        assert tool(["zstd", "-d"], stored) == sample(CHUNK)


class TestGzip:
    @pytest.mark.parametrize("level", [1, 6, 12])
    def test_levels(self, level: int) -> None:
        stored = b"".join(apply(build({"type": "gzip", "level": level}), [sample(3 * CHUNK)]))
        tool(["gzip", "--test"], stored)
        assert tool(["zcat"], stored) == sample(3 * CHUNK)


class TestLz4:
    @pytest.mark.parametrize("level", [0, 3, 16])
    def test_levels(self, level: int) -> None:
        stored = b"".join(apply(build({"type": "lz4", "level": level}), [sample(3 * CHUNK)]))
        tool(["lz4", "--test", "-q"], stored)
        assert tool(["lz4", "-d"], stored) == sample(3 * CHUNK)


class TestXz:
    @pytest.mark.parametrize("level", [0, 6])
    def test_the_check_is_crc64(self, level: int) -> None:
        stored = b"".join(apply(build({"type": "xz", "level": level}), [sample(100_000)]))
        assert stored[6:8] == b"\0\4"  # stream flags: CRC64
        assert tool(["xz", "-d"], stored) == sample(100_000)


class TestFilter:
    def test_a_chain_of_tools(self) -> None:
        tools = {"command": ["age", "-r", RECIPIENTS[0]], "inverse": ["age", "-d", "-i", str(KEYS)]}
        transform = build({"type": "filter", "suffix": ".age", **tools})
        with leaving_nothing():
            stored = apply(transform, cut(sample(3 * CHUNK), CHUNK))
            assert invert(build(AGE), stored) == sample(3 * CHUNK)
            assert invert(transform, stored) == sample(3 * CHUNK)
