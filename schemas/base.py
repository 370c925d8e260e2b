"""The base of every model a user may write, and the scalar types that carry units."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    WithJsonSchema,
)

_SIZE_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_TIME_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
# Bounded digits: a float that overflows would be an error of ours, not of the file.
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)"
_SIZE = re.compile(_NUMBER + r"\s*([A-Za-z]{1,3})")
_DURATION = re.compile(_NUMBER + r"\s*(ms|s|m|h|d|w)")


class Spec(BaseModel):
    """A block of the configuration: unknown keys are errors; frozen; silent about its input."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=False,
        protected_namespaces=(),
    )

    suggested: ClassVar[tuple[str, ...]] = ()
    """Optional keys that a first configuration should have all the same; see `init`."""


REFERENCE = r"\$\{.+\}"
"""In the JSON Schema: a text that stands for a value, and is resolved when the file is read."""


def in_schema(pattern: str, is_secret: bool = False, title: str = "") -> WithJsonSchema:
    """How a text of this form is described in the JSON Schema; `title` says what it measures."""
    found: dict[str, Any] = {"type": "string", "pattern": f"{pattern}|{REFERENCE}"}
    if is_secret:
        found |= {"format": "password", "writeOnly": True}
    return WithJsonSchema({"title": title, **found} if title else found)


_SIZE_INPUT = in_schema(
    rf"^\s*{_NUMBER}\s*([KkMmGgTt][Ii]?)?[Bb]\s*$",
    title="Size in B, KB, MB, GB, TB (decimal) or KiB, MiB, GiB, TiB (binary)",
)
_RATE_INPUT = in_schema(
    rf"^\s*{_NUMBER}\s*([KkMmGgTt][Ii]?)?[Bb]/s\s*$", title="Rate: a size, then /s"
)
_DURATION_INPUT = in_schema(
    rf"^\s*({_NUMBER}\s*(ms|s|m|h|d|w)\s*)+$",
    title="Time in ms, s, m, h, d, w, or a sum such as 1h30m",
)


def parse_size(value: Any) -> int:
    """Bytes in ``64MiB`` (binary) or ``64MB`` (decimal); a bare number is refused."""
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    unit = _SIZE_UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError("must be a size with a unit; such as 64MiB or 10GB")
    return int(Decimal(match[1]) * unit)


def parse_rate(value: Any) -> int:
    """Bytes per second in ``20MiB/s``."""
    text = value.strip() if isinstance(value, str) else ""
    try:
        rate = parse_size(text.removesuffix("/s")) if text.endswith("/s") else 0
    except ValueError:
        rate = 0
    if rate <= 0:
        raise ValueError("must be a rate above zero with a unit; such as 20MiB/s")
    return rate


def parse_duration(value: Any) -> float:
    """Seconds in ``30s``, ``26h``, ``30d`` or a sum such as ``1h30m``; never zero."""
    text = value.strip() if isinstance(value, str) else ""
    parts = list(_DURATION.finditer(text))
    seconds = sum(float(part[1]) * _TIME_UNITS[part[2]] for part in parts)
    understood = "".join(part[0] for part in parts)
    if seconds <= 0 or understood.replace(" ", "") != text.replace(" ", ""):
        raise ValueError("must be a time above zero with a unit; such as 30s, 26h, 30d or 1h30m")
    return seconds


def format_size(size: float) -> str:
    """``5MiB``: the largest binary unit that leaves a whole number."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size and size % 2 ** (10 * power) == 0:
            return f"{int(size) >> 10 * power}{unit}"
    return f"{int(size)}B"


def format_duration(seconds: float) -> str:
    """``90s``, ``2h``: the largest unit that leaves a whole number."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _TIME_UNITS[unit] == 0:
            return f"{int(seconds / _TIME_UNITS[unit])}{unit}"
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{seconds:.3f}".rstrip("0") + "s"


ByteSize = Annotated[
    int,
    BeforeValidator(parse_size, json_schema_input_type=Annotated[str, _SIZE_INPUT]),
    Field(examples=["64MiB"]),
]
"""A number of bytes, written with a unit."""

ByteRate = Annotated[
    int,
    BeforeValidator(parse_rate, json_schema_input_type=Annotated[str, _RATE_INPUT]),
    Field(examples=["20MiB/s"]),
]
"""Bytes per second, written with a unit."""

Duration = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=Annotated[str, _DURATION_INPUT]),
    Field(examples=["30s"]),
]
"""Seconds, written with a unit."""


def _plain_suffix(value: str) -> str:
    if value.endswith(".manifest.json"):
        raise ValueError("must not be that of a manifest; use another, such as .json")
    if not re.fullmatch(r"(\.[A-Za-z0-9]+)*", value):
        raise ValueError(
            "must be a file suffix; a dot, then letters and digits, such as .sql or .tar.gz"
        )
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be an absolute path; start it with /")
    return value


AbsolutePath = Annotated[str, AfterValidator(_absolute), in_schema("^/")]
"""A path of this machine that does not depend on where the program was started."""

Text = Annotated[str, Field(min_length=1)]
"""Text that is not empty: a variable that is set to nothing does not slip through."""


def _has_program(command: list[str]) -> list[str]:
    if not command[0]:
        raise ValueError("must start with the name of a program")
    return command


Command = Annotated[list[str], Field(min_length=1), AfterValidator(_has_program)]
"""A program and its arguments, which may be empty."""

Suffix = Annotated[str, AfterValidator(_plain_suffix), in_schema(r"^(\.[A-Za-z0-9]+)*$")]
"""A file suffix that can be told apart from the name before it."""

Secret = SecretStr
"""A value that must never be shown; read it with ``get_secret_value()`` at the last moment."""

_SECRET_OPTION = re.compile(
    r"(?i)(pass|pwd|secret|token|credential|key|sas\b|connection_string)(?!.*(file|path)(name)?$)"
)
_NO_SECRETS = frozenset({"anon", "browser", "cache", "cloud", "google_default"})
"""Words that gcsfs understands instead of a token."""


def hide_secrets(options: dict[str, Any]) -> dict[str, Any]:
    """Free settings of something whose model is not known: by its name, a text may be a secret."""
    return {str(name): _hidden(str(name), value) for name, value in options.items()}


def _hidden(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return hide_secrets(value)
    if isinstance(value, list):
        return [_hidden(name, each) for each in value]
    is_secret = isinstance(value, str) and value not in _NO_SECRETS and _SECRET_OPTION.search(name)
    return Secret(value) if is_secret else value
