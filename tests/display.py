"""What people would see of what a program writes to a terminal."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])|[\r\n]|[^\x1b\r\n]+")


class Display:
    """Feed it what a program writes; `screen` is what is visible, `text` all since the start.

    It knows the few control sequences that we use. Any other is an error: it would be shown as
    garbage somewhere.
    """

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.columns, self._height = columns, lines
        self._rows: list[list[str]] = [[]]
        self._row = self._column = 0

    @property
    def text(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self._rows).rstrip("\n")

    @property
    def screen(self) -> list[str]:
        """The visible rows, without those below that are blank."""
        rows = ["".join(row).rstrip() for row in self._rows[self._top :]]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    @property
    def _top(self) -> int:
        return max(len(self._rows) - self._height, 0)

    def feed(self, text: str) -> None:
        """Write, as a program does; a new line also returns to the first column."""
        position = 0
        while position < len(text):
            token = _TOKEN.match(text, position)
            assert token is not None, f"not understood: {text[position : position + 10]!r}"
            position = token.end()
            if token[2]:
                self._control(token[2], token[1])
            elif token[0] == "\n":
                self._down()
            elif token[0] == "\r":
                self._column = 0
            else:
                self._print(token[0])

    def _control(self, name: str, argument: str) -> None:
        if name == "A":
            self._row = max(self._row - int(argument or 1), self._top)
        elif name == "K":
            del self._rows[self._row][self._column :]
        elif name == "J":
            del self._rows[self._row][self._column :]
            for row in self._rows[self._row + 1 :]:
                row.clear()
        else:
            assert name == "m", f"unknown control sequence {name!r}"

    def _down(self) -> None:
        self._row, self._column = self._row + 1, 0
        if self._row == len(self._rows):
            self._rows.append([])

    def _print(self, text: str) -> None:
        for character in text:
            if self._column == self.columns:
                self._down()
            row = self._rows[self._row]
            row.extend(" " * (self._column + 1 - len(row)))
            row[self._column] = character
            self._column += 1
