"""What stands in the pages of the documentation: fenced blocks, words set as code, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))
KEY = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
_FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) +(.+?) *$", re.MULTILINE)
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    text: str
    heading: str
    """The last one before it."""

    @property
    def id(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of these languages, in order; all of them when none is named."""
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        indent, language, body = match.groups()
        lines = [line.removeprefix(indent) for line in body.splitlines()]
        titles = [title for _, title in _HEADING.findall(_without_blocks(text[: match.start()]))]
        line = text.count("\n", 0, match.start()) + 1
        heading = titles[-1] if titles else ""
        found.append(Block(page, line, language, "\n".join(lines) + "\n", heading))
    return [block for block in found if not languages or block.language in languages]


def prose(page: Path) -> str:
    """The text without its fenced blocks."""
    return _without_blocks(page.read_text())


def codes(page: Path) -> list[str]:
    """What is set as code within the text."""
    return _CODE.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """What links to headings of the page may end with."""
    return {_anchor(title) for _, title in _HEADING.findall(prose(page))}


def commands(text: str) -> Iterator[str]:
    """Lines of shell, those that go on in the next line joined."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def value_for(name: str) -> str:
    """What a variable of an example could hold."""
    if name.endswith(("URL", "ENDPOINT", "WEBHOOK")):
        return "https://host.example.net/path" if "ENDPOINT" not in name else "https://s3.example"
    return {"RECIPIENT": KEY, "PORT": "22"}.get(name.rpartition("_")[2], "some-value")


def _without_blocks(text: str) -> str:
    return _FENCE.sub("", text)


def _anchor(title: str) -> str:
    plain = re.sub(r"[^\w\- ]", "", title.replace("`", "")).lower()
    return plain.replace(" ", "-")
