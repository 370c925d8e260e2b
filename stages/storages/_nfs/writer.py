"""An upload to an NFS server, from its first byte to its name, or to nothing."""

from __future__ import annotations

from stages.storages._nfs.client import Client
from stages.storages._nfs.session import Session
from stages.storages._nfs.target import Target
from stages.storages._nfs.window import Window
from stages.storages._windowed import WindowWriter, ended_in_time


class NfsWriter(WindowWriter[Session]):
    """An unfinished file on the server, and the window of what its disk has not confirmed.

    `commit` links the file to its name, which fails when that exists, and removes the other name.
    Only where the file system has no hard links it looks first and then renames: an object that
    another client commits under the same name just in between would be replaced.

    Args:
        client: where the session is from.
        session: of this writer alone.
        target: the file, over that session.
        window: the same.
        doing: what is tried here, for messages.
    """

    def __init__(
        self, client: Client, session: Session, target: Target, window: Window, doing: str
    ) -> None:
        super().__init__(client, session, target, window, doing)
        self._client = client
        self._file = target

    def _clean_up(self) -> None:
        doing = "remove an unfinished object"
        with self._client.session(doing) as session, ended_in_time(session):
            self._file.over(self._client, session).remove()
