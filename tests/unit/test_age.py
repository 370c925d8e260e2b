"""The age format: its keys, the vectors of its authors, and streams that are damaged.

`age_vectors.json` holds the vectors of github.com/C2SP/CCTV (0BSD) for X25519 and scrypt.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.context import StageContext
from pipeline.errors import TransformError
from pipeline.stage import CHUNK
from schemas.age_keys import (
    IDENTITY,
    RECIPIENT,
    decode_bech32,
    decode_identity,
    decode_recipient,
    encode_bech32,
    validate_recipient,
)
from schemas.transforms import AgeTransform
from stages.transforms._age_format import (
    BLOCK,
    AgeError,
    Identity,
    NoIdentityFits,
    Passphrase,
    X25519Identity,
    X25519Recipient,
)
from stages.transforms._age_stream import decrypt, encrypt
from stages.transforms.age import Age

VECTORS: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("age_vectors.json").read_text()
)
ERRORS = {
    "no match": (NoIdentityFits, "no identity fits"),
    "HMAC failure": (AgeError, "its MAC does not match"),
    "header failure": (AgeError, "header|not encrypted with age|work factor|is empty|cut off"),
    "payload failure": (AgeError, "age stream"),
}
ALICE, BOB = (X25519Identity(hashlib.sha256(name).digest()) for name in (b"alice", b"bob"))
ALICE_PUBLIC = encode_bech32(RECIPIENT, ALICE.recipient)
ALICE_PRIVATE = encode_bech32(IDENTITY, hashlib.sha256(b"alice").digest()).upper()
BOB_PUBLIC = encode_bech32(RECIPIENT, BOB.recipient)


def identities(vector: dict[str, Any]) -> list[Identity]:
    keys: list[Identity] = [X25519Identity(decode_identity(k)) for k in vector.get("identity", [])]
    return keys + [Passphrase(phrase) for phrase in vector.get("passphrase", [])]


def content(vector: dict[str, Any]) -> bytes:
    data = base64.b64decode(vector["file"])
    return zlib.decompress(data) if vector.get("compressed") == "zlib" else data


@pytest.mark.parametrize("size", [1, 100, CHUNK], ids=["bytes", "small", "whole"])
@pytest.mark.parametrize("name", VECTORS)
def test_vector(name: str, size: int) -> None:
    vector = VECTORS[name]
    file = content(vector)
    if size == 1 and len(file) > 10_000:
        pytest.skip("byte by byte takes long")
    released = hashlib.sha256()
    chunks = (file[start : start + size] for start in range(0, len(file), size))
    failure = None
    try:
        for piece in decrypt(chunks, identities(vector)):
            released.update(piece)
    except TransformError as error:
        failure = error
    if vector["expect"] == "success":
        assert failure is None
    else:
        kind, message = ERRORS[vector["expect"]]
        with pytest.raises(kind, match=message):
            raise failure or AssertionError("was accepted")
    if "payload" in vector:
        assert released.hexdigest() == vector["payload"]


def age(**fields: Any) -> Age:
    return Age(AgeTransform.model_validate({"type": "age", **fields}))


def sealed(plain: bytes) -> bytes:
    return b"".join(encrypt([plain] if plain else [], [X25519Recipient(ALICE.recipient)]))


def opened(chunks: Iterable[bytes], *keys: Identity) -> bytes:
    return b"".join(decrypt(chunks, keys or [ALICE]))


class TestStream:
    @pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 17])
    def test_sizes(self, size: int) -> None:
        plain = bytes(size)
        stored = sealed(plain)
        tags = max(1, -(-size // BLOCK))
        assert len(stored) == len(sealed(b"")) + size + 16 * (tags - 1)
        assert opened([stored]) == plain

    def test_each_stream_has_keys_of_its_own(self) -> None:
        assert sealed(b"same")[-20:] != sealed(b"same")[-20:]

    def test_each_recipient_can_decrypt(self) -> None:
        recipients = [X25519Recipient(key.recipient) for key in (ALICE, BOB)]
        stored = b"".join(encrypt([b"hello"], recipients))
        assert opened([stored], ALICE) == opened([stored], BOB) == b"hello"

    def test_a_stranger_cannot(self) -> None:
        with pytest.raises(NoIdentityFits, match="encrypted to other keys"):
            opened([sealed(b"hello")], BOB)

    def test_passphrases(self) -> None:
        stored = b"".join(encrypt([b"hello"], [Passphrase("right", log_n=10)]))
        assert opened([stored], Passphrase("right")) == b"hello"
        with pytest.raises(NoIdentityFits):
            opened([stored], Passphrase("wrong"))

    def test_a_work_factor_above_the_cap_is_refused_before_it_is_computed(self) -> None:
        stored = b"".join(encrypt([b"hello"], [Passphrase("right", log_n=10)]))
        greedy = stored.replace(b" 10\n", b" 21\n", 1)
        with pytest.raises(AgeError, match="work factor is above 20"):
            opened([greedy], Passphrase("right"))

    def test_damage_is_located(self) -> None:
        stored = bytearray(sealed(bytes(5 * BLOCK)))
        stored[-2 * (BLOCK + 16) - 5] ^= 1
        with pytest.raises(AgeError, match=r"^the age stream is damaged in chunk 3$"):
            opened([bytes(stored)])

    def test_a_cut_at_a_chunk_is_told_from_damage(self) -> None:
        stored = sealed(bytes(5 * BLOCK))
        with pytest.raises(AgeError, match=r"^the age stream is cut off$"):
            opened([stored[: -(BLOCK + 16)]])

    def test_chunks_cannot_change_places(self) -> None:
        stored = sealed(bytes(range(256)) * 1024)
        size = BLOCK + 16
        head, one, two = stored[: -4 * size], stored[-4 * size : -3 * size], stored[-3 * size :]
        with pytest.raises(AgeError, match="damaged in chunk 1"):
            opened([head + two[:size] + one + two[size:]])

    def test_garbage_after_the_end(self) -> None:
        with pytest.raises(AgeError, match="something follows the end"):
            opened([sealed(bytes(BLOCK)) + b"x"])

    def test_a_header_without_end(self) -> None:
        line = b"-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n"
        with pytest.raises(AgeError, match="no end"):
            opened([b"age-encryption.org/v1\n"] + [line * 1000] * 20)

    def test_a_header_with_very_many_recipients(self) -> None:
        line = b"-> other\n\n"
        header = b"age-encryption.org/v1\n" + line * 129 + b"--- " + b"A" * 43 + b"\n"
        with pytest.raises(AgeError, match="damaged at recipient 129"):
            opened([header])


class TestKeys:
    def test_the_keys_of_the_specification(self) -> None:
        private = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
        public = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
        assert decode_identity(private) == b"B" * 32
        assert X25519Identity(b"B" * 32).recipient == decode_recipient(public)
        assert validate_recipient(public) is None

    @pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 31, bytes(range(33))])
    def test_bech32_comes_back(self, data: bytes) -> None:
        assert decode_bech32(encode_bech32("any", data)) == ("any", data)

    @pytest.mark.parametrize(
        "text", ["A12UEL5L", "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw", "?1ezyfcl"]
    )
    def test_valid_strings_of_bip_173(self, text: str) -> None:
        prefix, _ = decode_bech32(text)
        assert text.lower().startswith(prefix)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "is not a public key of age"),
            ("age1", "typing mistake or is not complete"),
            (ALICE_PUBLIC[:-1], "typing mistake or is not complete"),
            (ALICE_PUBLIC[:-1] + ("q" if ALICE_PUBLIC[-1] != "q" else "p"), "typing mistake"),
            (ALICE_PUBLIC.replace("age1", "age1b"), "cannot be part of a key"),
            (ALICE_PUBLIC[:-1] + ALICE_PUBLIC[-1].upper() + "Q", "upper and lower case"),
            (ALICE_PUBLIC.upper(), "must start with age1"),
            (ALICE_PRIVATE, "is a private key"),
            (ALICE_PRIVATE.lower(), "is a private key"),
            ("ssh-ed25519 AAAA", "is an SSH key"),
            (encode_bech32("age1pq", bytes(64)), "not supported"),
            (encode_bech32("age1yubikey", bytes(33)), "not supported"),
            (encode_bech32("age", bytes(31)), "not 32 bytes long"),
        ],
    )
    def test_what_is_wrong_with_a_recipient(self, text: str, problem: str) -> None:
        said = validate_recipient(text)
        assert said is not None
        assert problem in said
        assert not text or text[4:] == "" or text[4:] not in said

    def test_every_typing_mistake_of_one_character_is_found(self) -> None:
        for place in range(4, len(ALICE_PUBLIC)):
            for letter in "qpzry9x8gf2tvdw0s3jn54khce6mua7l":
                wrong = ALICE_PUBLIC[:place] + letter + ALICE_PUBLIC[place + 1 :]
                assert (validate_recipient(wrong) is None) == (wrong == ALICE_PUBLIC)

    def test_the_schema_points_at_the_wrong_recipient(self) -> None:
        fields = {"type": "age", "recipients": [ALICE_PUBLIC, ALICE_PRIVATE]}
        with pytest.raises(ValidationError) as raised:
            TypeAdapter(AgeTransform).validate_python(fields)
        (problem,) = raised.value.errors(include_input=False)
        assert problem["loc"] == ("recipients", 1)
        assert "private key" in problem["msg"]
        assert ALICE_PRIVATE not in str(raised.value)


class TestFiles:
    def test_nothing_is_read_before_it_is_needed(self) -> None:
        transform = age(recipients_file="/nonexistent/keys", identity_file="/nonexistent/key")
        with pytest.raises(TransformError, match='cannot read the recipients file "/nonexistent/k'):
            transform.probe()
        with pytest.raises(TransformError, match='cannot read the identity file "/nonexistent/key'):
            list(transform.invert([b"x"], StageContext()))

    def test_keys_of_both_places_are_used(self, tmp_path: Path) -> None:
        keys = tmp_path / "recipients"
        keys.write_text(f"# those who restore\n\n  {BOB_PUBLIC}  \n")
        transform = age(recipients=[ALICE_PUBLIC], recipients_file=str(keys))
        stored = b"".join(transform.apply([b"hello"], StageContext()))
        assert opened([stored], ALICE) == opened([stored], BOB) == b"hello"
        assert transform.probe() == ["encrypts to 2 public keys"]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "has no key in it"),
            ("# nothing\n", "has no key in it"),
            (f"# made by me\n{BOB_PUBLIC[:-1]}\n", "line 2: has a typing mistake"),
            (ALICE_PRIVATE, "line 1: is a private key"),
            ("-----BEGIN AGE ENCRYPTED FILE-----", "line 1: is not a public key"),
            ("\udcff", "is not a text file"),
        ],
    )
    def test_a_bad_recipients_file(self, tmp_path: Path, text: str, problem: str) -> None:
        keys = tmp_path / "recipients"
        keys.write_text(text, errors="surrogateescape")
        with pytest.raises(TransformError) as raised:
            list(age(recipients_file=str(keys)).apply([b"x"], StageContext()))
        assert problem in str(raised.value)
        assert ALICE_PRIVATE not in str(raised.value)

    def test_another_identity_file_can_be_given(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text(ALICE_PRIVATE + "\n")
        transform = age(recipients=[ALICE_PUBLIC])
        stored = list(transform.apply([b"hello"], StageContext()))
        assert transform.can_invert() == "no identity_file with the private key is given"
        with pytest.raises(TransformError, match="no identity_file"):
            list(transform.invert(stored, StageContext()))
        able = transform.with_identity(str(tmp_path / "key"))
        assert able.can_invert() is None
        assert list(able.invert(stored, StageContext())) == [b"hello"]
        assert transform.can_invert() is not None

    def test_undo_names_the_kind_of_key(self) -> None:
        assert age(recipients=[ALICE_PUBLIC]).undo == "age -d -i KEY_FILE"
        assert age(passphrase="x" * 20).undo == "age -d"
