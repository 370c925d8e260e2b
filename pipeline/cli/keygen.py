"""`keygen`: a key pair for the stage `age`, in the form that age-keygen writes."""

from __future__ import annotations

import argparse
import os
from datetime import datetime, timezone

from pipeline.errors import NxsError
from schemas.age_keys import IDENTITY, RECIPIENT, encode_bech32


def run(options: argparse.Namespace) -> int:
    """Write the private key to a new file, the public key to stdout; returns the exit code."""
    public, private = make_pair()
    made = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = f"# created: {made}\n# public key: {public}\n{private}\n"
    try:
        descriptor = os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        hint = "an existing key is never replaced" if isinstance(error, FileExistsError) else None
        reason = (error.strerror or "unknown error").lower()
        raise NxsError(f'"{options.file}" cannot be written: {reason}', hint) from None
    print(public)
    return 0


def make_pair() -> tuple[str, str]:
    """A new public and private key, as text."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.generate()
    public = encode_bech32(RECIPIENT, key.public_key().public_bytes_raw())
    return public, encode_bech32(IDENTITY, key.private_bytes_raw()).upper()
