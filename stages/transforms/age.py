"""Encryption to age keys (age-encryption.org/v1), or with a passphrase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pipeline.context import StageContext
from pipeline.errors import TransformError
from pipeline.stage import CHUNK, Transform
from schemas.age_keys import decode_identity, decode_recipient
from schemas.transforms import AgeTransform
from stages.transforms._age_format import (
    SCRYPT_LOG_N,
    Identity,
    Passphrase,
    Recipient,
    X25519Identity,
    X25519Recipient,
)
from stages.transforms._age_stream import decrypt, encrypt
from stages.transforms._chunks import join_pieces

Key = TypeVar("Key")


class Age(Transform):
    """Encrypts with age; key files are read when a stream starts."""

    suffix = ".age"
    encrypts = True

    def __init__(self, spec: AgeTransform) -> None:
        self._spec = spec
        self._recipients = [X25519Recipient(decode_recipient(text)) for text in spec.recipients]
        self._passphrase = None
        self._to_own_keys = False
        self.memory = 4 * CHUNK
        if spec.passphrase is not None:
            self._passphrase = Passphrase(spec.passphrase.get_secret_value())
            self.memory += 1024 << SCRYPT_LOG_N

    @classmethod
    def to_own_keys(cls, path: str) -> Age:
        """For what only this host reads again: an identity file is all it takes."""
        own = cls(AgeTransform.model_construct(type="age", recipients=[], identity_file=path))
        own._to_own_keys = True
        return own

    def with_identity(self, path: str) -> Age:
        """The same, but decrypting with another identity file."""
        return Age(self._spec.model_copy(update={"identity_file": path}))

    def apply(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        yield from join_pieces(encrypt(chunks, self._all_recipients()))

    def invert(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        yield from join_pieces(decrypt(chunks, self._identities()))

    @property
    def undo(self) -> str:
        return "age -d -i KEY_FILE" if self._passphrase is None else "age -d"

    def can_invert(self) -> str | None:
        if self._passphrase is None and self._spec.identity_file is None:
            return "no identity_file with the private key is given"
        return None

    def probe(self) -> list[str]:
        facts = []
        if self._passphrase is None:
            facts.append(f"encrypts to {len(self._all_recipients())} public keys")
        if self._spec.identity_file is not None:
            facts.append(f"{len(self._identities())} private keys can be read")
        return facts or ["encrypts with a passphrase"]

    def _all_recipients(self) -> list[Recipient]:
        recipients: list[Recipient] = list(self._recipients)
        if self._passphrase is not None:
            recipients.append(self._passphrase)
        if self._to_own_keys:
            recipients += [X25519Recipient(each.recipient) for each in self._own_keys()]
        if self._spec.recipients_file is not None:
            keys = _read_keys(self._spec.recipients_file, "recipients", decode_recipient)
            recipients += map(X25519Recipient, keys)
        return recipients

    def _own_keys(self) -> list[X25519Identity]:
        if self._spec.identity_file is None:
            return []
        keys = _read_keys(self._spec.identity_file, "identity", decode_identity)
        return [X25519Identity(key) for key in keys]

    def _identities(self) -> list[Identity]:
        identities: list[Identity] = []
        if self._passphrase is not None:
            identities.append(self._passphrase)
        identities += self._own_keys()
        if not identities:
            raise TransformError("cannot decrypt", self.can_invert())
        return identities


def _read_keys(path: str, kind: str, decode: Callable[[str], Key]) -> list[Key]:
    """The keys in a file: one a line, with comments and empty lines between."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not a text file"
        raise TransformError(f'cannot read the {kind} file "{path}": {reason}') from None
    keys = []
    for number, line in enumerate(lines, start=1):
        if line and not line.startswith("#"):
            try:
                keys.append(decode(line))
            except ValueError as problem:
                raise TransformError(f'{kind} file "{path}", line {number}: {problem}') from None
    if not keys:
        raise TransformError(f'the {kind} file "{path}" has no key in it')
    return keys


COMPONENT = Age
