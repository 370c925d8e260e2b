"""The file of an unfinished object: how it comes to be, is found again, and gets its name."""

from __future__ import annotations

import posixpath
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.errors import StorageRefused
from stages.storages._names import exists_already, in_progress, was_removed
from stages.storages._sftp.errors import LOST, MISSING
from stages.storages._sftp.quiet_asyncssh import asyncssh
from stages.storages._sftp.session import Session

_FILE_MODE = 0o600
_CREATE_ATTEMPTS = 30
ONE_REQUEST = 0
"""As a block size: each call is one request, whatever its size."""


@dataclass(frozen=True)
class Place:
    """Where an object goes."""

    root: str
    name: str
    part: str
    """Name of the unfinished object, relative to the root like `name`."""
    part_path: str
    final_path: str


class NewPart:
    """Makes the file; called again when the connection broke.

    Raises:
        StorageRefused: the object exists, or is being written.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._may_be_ours = False
        """Whether a file that is there may come from a request of ours that nobody answered."""

    async def __call__(self, session: Session) -> Any:
        place = self._place
        if await session.exists(place.final_path):
            raise exists_already(place.name)
        for _ in range(_CREATE_ATTEMPTS):
            # Whoever removes the last object of a directory removes the directory too.
            with suppress(*MISSING):
                return await self._open(session)
            with suppress(*MISSING):
                await session.make_directories(posixpath.dirname(place.part_path))
        return await self._open(session)

    async def _open(self, session: Session) -> Any:
        place = self._place
        private = asyncssh.SFTPAttrs(permissions=_FILE_MODE)
        may_be_ours, self._may_be_ours = self._may_be_ours, True
        try:
            return await session.sftp.open(place.part_path, "xb", private, block_size=ONE_REQUEST)
        except LOST:
            raise
        except asyncssh.SFTPError as error:
            self._may_be_ours = may_be_ours
            if isinstance(error, MISSING) or not await session.exists(place.part_path):
                raise
        if may_be_ours:
            return await find_part(session, place)
        raise in_progress(place.name)


async def find_part(session: Session, place: Place) -> Any:
    """Open the file again, to write.

    Raises:
        StorageRefused: it is not there any more.
    """
    try:
        return await session.sftp.open(
            place.part_path, asyncssh.FXF_WRITE, encoding=None, block_size=ONE_REQUEST
        )
    except MISSING:
        raise was_removed(place.name) from None


class Publishing:
    """Gives the file of an unfinished object its name; called again when the connection broke.

    Args:
        server: its name, for messages.
        place: of the object.
    """

    def __init__(self, server: str, place: Place) -> None:
        self._server = server
        self._place = place
        self.may_be_done = False
        """Whether a rename was asked for, and perhaps done without an answer."""

    async def __call__(self, session: Session, size: int) -> None:
        """Rename the file, which nobody has open, when it is whole.

        Raises:
            StorageRefused: it is not, or there is an object of this name.
        """
        place = self._place
        if self.may_be_done and await self.was_done(session, size):
            return
        try:
            stored = (await session.sftp.stat(place.part_path)).size
        except MISSING:
            raise was_removed(place.name) from None
        if stored != size:
            raise StorageRefused(
                f'"{self._server}" holds {stored} bytes of "{place.name}", {size} were sent',
                "it lost some; did it crash?",
            )
        # Some servers let a plain rename replace its target; OpenSSH does not.
        if await session.exists(place.final_path):
            raise exists_already(place.name)
        await self.rename(session, size)

    async def rename(self, session: Session, size: int) -> None:
        place, self.may_be_done = self._place, True
        try:
            await session.sftp.rename(place.part_path, place.final_path)
        except LOST:
            raise
        except asyncssh.SFTPError as error:
            # What a broken connection had asked for may have been done in between.
            if isinstance(error, MISSING) and await self.was_done(session, size):
                return
            self.may_be_done = False
            if await session.exists(place.final_path):
                raise exists_already(place.name) from None
            raise

    async def was_done(self, session: Session, size: int) -> bool:
        """Whether the object is there and the unfinished one is not."""
        if await session.exists(self._place.part_path):
            return False
        try:
            found = await session.sftp.stat(self._place.final_path)
        except MISSING:
            return False
        return bool(found.size == size)

    async def take_back(self, session: Session, size: int) -> None:
        """Remove what is there of the object, finished or not."""
        place = self._place
        try:
            # First, since a rename that is still under way finds nothing then, or is done.
            await session.sftp.remove(place.part_path)
        except MISSING:
            if self.may_be_done and await self.was_done(session, size):
                await session.sftp.remove(place.final_path)
        await session.remove_empty_parents(place.root, place.part)
