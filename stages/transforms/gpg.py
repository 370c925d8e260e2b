"""Encryption with the program gpg (OpenPGP, RFC 4880): to public keys, or with a passphrase."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pipeline.context import StageContext
from pipeline.errors import TransformError
from pipeline.stage import CHUNK, Needed, Transform
from schemas.base import Secret
from schemas.transforms import GpgTransform
from stages._child import Program, capture, installed, stream

_NAME = "gpg"
_ALWAYS = ("--batch", "--no-tty", "--quiet", "--no-options", "--no-random-seed-file")
_ENCRYPT = (
    *("--cipher-algo", "AES256"),
    # What comes is compressed already, or is not to be.
    *("--compress-algo", "none"),
    # Keys are named by fingerprint or file: there is nothing left that a signature could tell.
    *("--trust-model", "always"),
)
_GOOD = b"[GNUPG:] GOODMDC"
"""Decrypted, and proved to be whole: https://github.com/gpg/gnupg/blob/master/doc/DETAILS."""
_STATUS = 1 << 16
# Without a count it would start an agent to measure one.
_SYMMETRIC = ("--symmetric", "--s2k-digest-algo", "SHA512", "--s2k-count", "65011712")


class Gpg(Transform):
    """Runs gpg for each stream; a passphrase reaches it through a file that is only in memory.

    To files with public keys, or with a passphrase, it needs no home directory and leaves nothing
    anywhere. A private key can only be in a home directory, where an agent of gpg keeps it; the
    agent stays behind, as it does for everybody else.
    """

    suffix = ".gpg"
    encrypts = True
    memory = 4 * CHUNK

    def __init__(self, spec: GpgTransform) -> None:
        self._spec = spec

    @property
    def undo(self) -> str:
        return "gpg -q -d"

    def apply(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        with self._encrypting() as program:
            yield from stream(program, context, TransformError, chunks)

    def invert(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        spec = self._spec
        secret = spec.passphrase or spec.key_passphrase
        with _memory("nxs-backup-status") as status:
            options = ["--decrypt", "--status-fd", str(status)]
            options += ["--no-keyring"] if spec.passphrase else []
            with self._program(options, secret, status) as program:
                yield from stream(program, context, TransformError, chunks)
            # For some streams that were cut or damaged it says nothing, and exits with 0.
            if _GOOD not in os.pread(status, _STATUS, 0).splitlines():
                raise TransformError("the stored stream is damaged, or no gpg made it")

    def can_invert(self) -> str | None:
        if not installed(_NAME):
            return f'"{_NAME}" is not installed'
        keys = self._home / "private-keys-v1.d"
        if self._spec.passphrase is None and not _has_key(keys):
            return f'there is no private key in "{self._home}"'
        return None

    def programs(self) -> list[Needed]:
        return [Needed(_NAME, installed(_NAME), "gnupg")]

    def probe(self) -> list[str]:
        version = capture(Program([_NAME, "--version"]), StageContext(), TransformError)
        with self._encrypting() as program:
            # Of nothing: a key that is missing, expired or not made for this is found now.
            capture(program, StageContext(), TransformError)
        number = len(self._spec.recipients) + len(self._spec.recipient_files)
        keys = "1 public key" if number == 1 else f"{number} public keys"
        way = f"to {keys}" if number else "with a passphrase"
        return [f"{version.decode().splitlines()[0]} encrypts {way}"]

    def _encrypting(self) -> AbstractContextManager[Program]:
        spec = self._spec
        if spec.passphrase is not None:
            return self._program([*_ENCRYPT, *_SYMMETRIC, "--no-keyring"], spec.passphrase)
        options = [*_ENCRYPT, "--encrypt"]
        for file in spec.recipient_files:
            options += ["--recipient-file", file]
        for fingerprint in spec.recipients:
            options += ["--recipient", fingerprint]
        return self._program(options if spec.recipients else [*options, "--no-keyring"])

    @contextmanager
    def _program(
        self, options: Sequence[str], secret: Secret | None = None, *descriptors: int
    ) -> Iterator[Program]:
        """What to run; to be used within the block, and once.

        Args:
            descriptors: what it gets besides the one with the secret.
        """
        home = ["--homedir", self._spec.home] if self._spec.home else []
        argv = [_NAME, *_ALWAYS, *home]
        env = {"LC_ALL": "C.UTF-8"}
        if secret is None:
            # A locked key: without a person there is nobody to ask, and the agent would wait.
            argv += [] if os.isatty(0) else ["--pinentry-mode", "error"]
            yield Program([*argv, *options], env, pass_fds=descriptors)
            return
        with _memory("nxs-backup-passphrase") as descriptor:
            os.pwrite(descriptor, secret.get_secret_value().encode() + b"\n", 0)
            argv += ["--pinentry-mode", "loopback", "--passphrase-fd", str(descriptor)]
            yield Program([*argv, *options], env, pass_fds=[descriptor, *descriptors])

    @property
    def _home(self) -> Path:
        usual = os.environ.get("GNUPGHOME") or "~/.gnupg"
        return Path(self._spec.home or usual).expanduser()


@contextmanager
def _memory(name: str) -> Iterator[int]:
    """A descriptor of a file that is in memory only."""
    descriptor = os.memfd_create(name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _has_key(directory: Path) -> bool:
    try:
        return any(name.endswith(".key") for name in os.listdir(directory))
    except OSError:
        return False


COMPONENT = Gpg
