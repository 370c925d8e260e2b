"""Jobs of the types desc_files and inc_files."""

from __future__ import annotations

import re
from typing import Any

from pipeline.convert.notes import Notes
from schemas.problems import Path
from schemas.v3.model import Source

Block = dict[str, Any]


def files_source(source: Source, path: Path, incremental: bool, notes: Notes) -> Block:
    """Our source; excludes of GNU tar become patterns like those of gitignore."""
    paths = [_target(text, (*path, "targets", n), notes) for n, text in enumerate(source.targets)]
    if not paths:
        notes.danger((*path, "targets"), "there is no target: v3 saved nothing, and called it well")
        notes.decide((*path, "targets"), "what is to be saved? / stands there for now")
    block: Block = {"type": "files", "paths": paths or ["/"]}
    if source.excludes:
        block["exclude"] = [notes.text((), pattern(text)) for text in source.excludes]
        message = "a star no longer crosses a slash; write ** where it should"
        for number, text in enumerate(source.excludes):
            if "/" in text and "*" in text:
                notes.changed((*path, "excludes", number), message)
    if not source.save_abs_path:
        block["names"] = "relative"
    if incremental:
        block["incremental"] = {"full": "yearly", "levels": ["monthly", "ten_days", "daily"]}
    notes.danger(path, "files that could not be read were passed over; now the run is partial")
    return block


def _target(text: str, path: Path, notes: Notes) -> str:
    target = text.rstrip("/") or "/"
    if not target.startswith("/"):
        target = f"/{target}"
        notes.decide(path, "a relative path depended on where v3 was started; is / in front right?")
    return notes.text(path, target.replace("[^", "[!"))


def pattern(text: str) -> str:
    """What leaves out the same as an exclude of GNU tar, but for stars that crossed a slash.

    tar matches at any depth: `log` every item of that name, `a/b` every `b` in an `a`.
    """
    found = re.sub(r"\*{2,}", "*", text.replace("[^", "[!"))
    found = found.rstrip("/") or "/"
    while found.startswith("*/"):
        found = found[2:]
    if found.startswith("!"):
        found = "\\" + found
    if "/" not in found or found.startswith("/"):
        return found
    return f"/**/{found}"
