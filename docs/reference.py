"""Writes `docs/reference/` from the models, the arguments of the program and the manifest's model.

    python -m docs.reference            # a test compares what is checked in with what this makes

Nothing is said here about any key: whatever is wrong in the reference is wrong in `schemas/`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types
from pydantic import BaseModel, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.cli.main import _parser
from pipeline.metrics import HELP, PREFIX
from schemas import base
from schemas.manifest import Manifest, ManifestIndex, ManifestShard, ManifestSource, ManifestStage
from schemas.notifiers import NotifierSpec
from schemas.pipeline import Backup, Branch, Defaults, Pipeline
from schemas.retention import RetentionPolicy
from schemas.sources import SourceSpec
from schemas.storages import StorageSpec
from schemas.telling import NotifierSpecBase
from schemas.tls import Tls
from schemas.transforms import TransformSpec

FOLDER = Path(__file__).resolve().parent / "reference"
_NOTE = "<!-- Made by docs/reference.py: change the descriptions in schemas/, and run it again. -->"
_UNIONS = {
    SourceSpec: ("source", "sources.md"),
    TransformSpec: ("stage", "stages.md"),
    StorageSpec: ("storage", "storages.md"),
    NotifierSpec: ("notifier", "notifiers.md"),
}
_FILE: dict[type[BaseModel], str] = {
    Backup: "backup",
    Branch: "branch",
    Defaults: "defaults",
    RetentionPolicy: "rotate",
}
_FILE |= {Tls: "tls"}
_UNITS = {
    base.parse_size: ("a size", base.format_size),
    base.parse_rate: ("a rate", lambda value: base.format_size(value) + "/s"),
    base.parse_duration: ("a time", base.format_duration),
}
_PLAIN = {str: "text", int: "a whole number", float: "a number", bool: "`true` or `false`"}
_PLAIN |= {SecretStr: "text, kept secret", Any: "anything", NoneType: "nothing"}
_ABOUT = {
    "sources": ("Sources", "What a backup reads: `source` of a backup, by its `type`."),
    "stages": (
        "Stages",
        "What happens to the bytes on their way: `stages` of a backup or of a branch, by `type`.",
    ),
    "storages": ("Storages", "Where backups are kept: entries of `storages`, by their `type`."),
    "notifiers": ("Notifiers", "Who is told: entries of `notifiers`, by their `type`."),
}


def pages() -> dict[str, str]:
    """The text of every page, by file name."""
    made = {"file.md": _file_page(), "commands.md": _commands_page()}
    made |= {"manifest.md": _manifest(), "metrics.md": _metrics()}
    for union, (_, name) in _UNIONS.items():
        made[name] = _union_page(union, name.removesuffix(".md"))
    return made


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", _NOTE, *(part for part in parts if part)]) + "\n"


# -- models ----------------------------------------------------------------------------------------


def _file_page() -> str:
    parts = [
        "What `pipeline.yaml` may hold. How it is read is told in "
        "[the configuration file](../configuration.md).",
        _keys(Pipeline),
    ]
    for model, title in _FILE.items():
        parts += [f"## {title}", _about(model), _keys(model)]
    for name, model in _inner(Pipeline):
        parts += [f"## {name}", _about(model), _keys(model), *_inner_parts(model, name)]
    return _page("The configuration file, key by key", *parts)


def _inner_parts(model: type[BaseModel], owner: str) -> Iterator[str]:
    for name, inner in _inner(model):
        yield from (f"### {name} of {owner}", _about(inner), _keys(inner))


def _union_page(union: Any, kind: str) -> str:
    title, about = _ABOUT[kind]
    parts = [about]
    if kind == "notifiers":
        parts += ["## Every notifier", _keys(NotifierSpecBase)]
    for model in get_args(get_args(union)[0]):
        parts += [f"## {_type_of(model)}", _about(model), _keys(model)]
        parts += _inner_parts(model, _type_of(model))
    return _page(title, *parts)


def _type_of(model: Any) -> str:
    return str(get_args(model.model_fields["type"].annotation)[0])


def _about(model: type[BaseModel]) -> str:
    lines = (model.__doc__ or "").split("\n")
    return "\n".join(line.strip() for line in lines).strip()


def _inner(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The blocks of keys that only this component has."""
    for name, field in model.model_fields.items():
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in _FILE:
                yield name, part


def _keys(model: type[BaseModel]) -> str:
    hints = get_type_hints(model, include_extras=True)
    shared = NotifierSpecBase.model_fields if issubclass(model, NotifierSpecBase) else {}
    lines = []
    for name, field in model.model_fields.items():
        said = shared.get(name)
        if name == "type" or (model is not NotifierSpecBase and said and _same(said, field)):
            continue
        lines.append(_key(model, name, field, hints[name]))
    return "\n".join(lines)


def _same(one: FieldInfo, other: FieldInfo) -> bool:
    return (one.description, one.default) == (other.description, other.default)


def _key(model: type[BaseModel], name: str, field: FieldInfo, hint: Any) -> str:
    words = [_kind(hint, field), *_limits(field)]
    if field.is_required():
        words.append("**required**")
    default = _default(field)
    if default:
        words.append(f"default {default}")
    text = field.description or ""
    line = f"- **`{name}`** ({', '.join(words)})" + (f": {text}" if text else "")
    if field.examples and not issubclass(model, Manifest):
        line += f"{'' if line.endswith('.') else '.'} Such as {_code(field.examples[0])}."
    return line


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required() or value in (None, PydanticUndefined, "", {}):
        return ""  # where something is computed, the description says it
    unit = _unit(field.metadata)
    if unit and not isinstance(value, str):
        value = unit[1](value)
    return _code(value)


def _unit(metadata: Any) -> Any:
    for item in metadata:
        if isinstance(item, BeforeValidator) and item.func in _UNITS:
            return _UNITS[item.func]
    return None


def _limits(field: FieldInfo) -> Iterator[str]:
    """The bounds of a number."""
    unit = _unit(field.metadata)
    show = unit[1] if unit else str
    found: dict[type, Any] = {type(item): item for item in field.metadata}
    low, high = found.get(annotated_types.Ge), found.get(annotated_types.Le)
    if low and high:
        yield f"{show(low.ge)} to {show(high.le)}"
    elif low and low.ge > 1:
        yield f"{show(low.ge)} or more"
    elif high:
        yield f"at most {show(high.le)}"


def _kind(hint: Any, field: FieldInfo | None = None) -> str:
    """What kind of value it is, in words."""
    if hint in _UNIONS:
        return _linked(*_UNIONS[hint])
    unit = _unit(field.metadata) if field else None
    if unit:
        return str(unit[0])
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        unit = _unit(arguments[1:])
        return str(unit[0]) if unit else _kind(arguments[0])
    if origin is Literal:
        choices = ", ".join(f"`{choice}`" for choice in arguments)
        return f"one of {choices}" if len(arguments) > 1 else choices
    if origin in (Union, UnionType):
        return " or ".join(_kind(each) for each in arguments if each is not NoneType)
    if origin is list:
        return f"list: {_kind(arguments[0])}"
    if origin is dict:
        return f"names, each with {_kind(arguments[1])}"
    return _of_class(hint)


def _of_class(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        if hint in _FILE:
            return _linked(_FILE[hint], f"file.md#{_FILE[hint]}")
        return "a block of keys"
    return _PLAIN.get(hint, getattr(hint, "__name__", str(hint)))


def _linked(word: str, target: str) -> str:
    return f"[{word}]({target})"


def _code(value: Any) -> str:
    is_line = isinstance(value, str) and "\n" not in value
    text = value if is_line else json.dumps(value, ensure_ascii=False, default=str)
    return f"`` {text} ``" if "`" in text else f"`{text}`"


# -- manifest --------------------------------------------------------------------------------------


def _manifest() -> str:
    parts = [
        "The JSON document beside each object, `NAME.manifest.json`. Its JSON Schema is "
        "[manifest.schema.json](../../schemas/manifest.schema.json). A reader has to accept keys "
        "that it does not know: a newer program may have written them.",
        _keys(Manifest),
    ]
    inner: dict[str, type[BaseModel]] = {"source": ManifestSource, "stages": ManifestStage}
    inner |= {"index": ManifestIndex, "shard": ManifestShard}
    for name, model in inner.items():
        parts += [f"## {name}", _about(model), _keys(model)]
    return _page("The manifest", *parts)


def _metrics() -> str:
    lines = [f"- `{PREFIX}{name}`: {text}" for name, text in HELP.items()]
    about = "What `metrics` tells Prometheus: see [metrics and traces](../metrics.md)."
    return _page("Metrics", about, "\n".join(lines))


# -- commands --------------------------------------------------------------------------------------


def _commands_page() -> str:
    parser = _parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    listed = {choice.dest: choice.help for choice in commands._choices_actions}
    everywhere = [action for action in parser._actions if _is_option(action)]
    parts = [parser.epilog or "", "## Everywhere", "\n".join(map(_option, everywhere))]
    known = {action.option_strings[0] for action in everywhere}
    for name, text in listed.items():
        parts += [f"## {name}", _command(name, text or "", commands.choices[name], known)]
    return _page("Commands", *parts)


def _is_option(action: argparse.Action) -> bool:
    return bool(action.option_strings) and action.help != argparse.SUPPRESS


def _command(name: str, text: str, parser: argparse.ArgumentParser, known: set[str]) -> str:
    own = [
        action
        for action in parser._actions
        if _is_option(action) and action.option_strings[0] not in known
    ]
    positional = [action for action in parser._actions if not action.option_strings]
    words = [_positional(action) for action in positional]
    usage = " ".join(["nxs-backup", name, *words, *(["[OPTION]..."] if own else [])])
    about = (parser.description or text).strip()
    parts = [f"{about[:1].upper()}{about[1:]}.".replace("..", "."), f"```text\n{usage}\n```"]
    if positional or own:
        parts.append("\n".join(map(_option, [*positional, *own])))
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog.strip()}\n```")
    return "\n\n".join(parts)


def _positional(action: argparse.Action) -> str:
    shown = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return {"?": f"[{shown}]", "*": f"[{shown}]...", "+": f"{shown}..."}.get(
        str(action.nargs), shown
    )


def _option(action: argparse.Action) -> str:
    chosen = "|".join(map(str, action.choices)) if action.choices else action.dest.upper()
    value = "" if action.nargs == 0 else str(action.metavar or chosen)
    names = ", ".join(action.option_strings)
    words = " ".join(word for word in (names, value) if word)
    told = [argparse.HelpFormatter("")._expand_help(action) if action.help else ""]
    told += ["has to be given"] * (action.required and bool(action.option_strings))
    told += [f"default `{action.default}`"] * (action.nargs is None and _has_default(action))
    text = "; ".join(part for part in told if part)
    return f"- `{words}`" + (f": {text}" if text else "")


def _has_default(action: argparse.Action) -> bool:
    return isinstance(action.default, (str, int)) and action.default != argparse.SUPPRESS


def main() -> None:
    """Write all pages, and remove those that are no more."""
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for path in FOLDER.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
