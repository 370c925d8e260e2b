"""An upload to an SMB server, from its first byte to its name, or to nothing."""

from __future__ import annotations

from stages.storages._smb.client import Client
from stages.storages._smb.session import Session
from stages.storages._smb.target import Target
from stages.storages._smb.window import Window
from stages.storages._windowed import WindowWriter, ended_in_time


class SmbWriter(WindowWriter[Session]):
    """An unfinished file on the server, and the window of what its disk has not confirmed.

    `commit` renames the file, which the server refuses when the name is taken.

    Args:
        client: where the session is from.
        session: of this writer alone.
        target: the file, over that session.
        doing: what is tried here, for messages.
    """

    def __init__(self, client: Client, session: Session, target: Target, doing: str) -> None:
        super().__init__(client, session, target, Window(session, target), doing)
        self._client = client
        self._file = target

    def _clean_up(self) -> None:
        # The server closes our file first: as long as it is open, it cannot be removed.
        session = self._client.new_session(self._session.number)
        try:
            with ended_in_time(session):
                session.persist(self._file.over(session).remove)
            self._client.give_back(session)
        except BaseException:
            session.close()
            raise
