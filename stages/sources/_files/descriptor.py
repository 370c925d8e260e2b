"""An open file that several threads use, and that one of them wants closed."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

_HOLDING = threading.Lock()


@dataclass(kw_only=True)
class Descriptor:
    """`fd` stays open until it was told to close and nobody holds it."""

    fd: int = -1
    """-1 when it is closed."""
    _holds: int = 0
    _closing: bool = False

    def hold(self) -> bool:
        """Keep `fd` open until `release`, from any thread; false when it is closed already."""
        with _HOLDING:
            is_open = self.fd >= 0
            self._holds += is_open
            return is_open

    def release(self) -> None:
        """Give up one hold."""
        with _HOLDING:
            self._holds -= 1
            self._close_unheld()

    def close(self) -> None:
        """Close it as soon as nobody holds it."""
        with _HOLDING:
            self._closing = True
            self._close_unheld()

    def recover(self) -> bool:
        """Take back `close`; false when it is closed already."""
        with _HOLDING:
            self._closing = False
            return self.fd >= 0

    def _close_unheld(self) -> None:
        if self._closing and not self._holds and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
