"""asyncssh with less work for each packet of data that is sent with AES-GCM.

For every 32 KiB, asyncssh 2.24 encrypts and sends an IGNORE packet ahead (against an attack on CBC
ciphers), makes two system calls for padding and two to send, each of which gives the interpreter's
lock away, expands the key twice, and copies the data some twenty times. That is three quarters of
the time an upload takes. Here it is one packet, a system call for each 256 KiB, and four copies.

This leans on what is inside the library, so it is for versions that were measured and tested, and
others work as they come. What it may break is told by the other side: each packet is authenticated.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stages.storages._sftp.quiet_asyncssh import asyncssh

_IGNORE, _CHANNEL_DATA = 2, 94
"""Messages of RFC 4253 and RFC 4254."""
_SFTP_WRITE = 6
_TOGETHER = 256 << 10
"""Bytes that are handed to the kernel at once."""
_RECEIVE = 64 << 10
"""Bytes taken from the kernel at once: the library copies what is left, for each packet."""
_RANDOM = 4 << 10

FITS = asyncssh.__version__.split(".")[:2] == ["2", "24"]
"""Whether this is written for the version that is installed."""


def lighten(connection: asyncssh.SSHClientConnection) -> None:
    """Have a connection that has just been made work like this."""
    if FITS:
        connection.__class__ = LeanConnection
        assert isinstance(connection, LeanConnection)
        connection.begin()


def lighten_session(sftp: asyncssh.SFTPClient) -> None:
    """Have an SFTP session over such a connection work like this."""
    handler: Any = sftp._handler
    if FITS:
        handler._writer.channel.__class__ = LeanChannel
        handler.__class__ = LeanHandler


class LeanConnection(asyncssh.SSHClientConnection):
    """Sends what is written in one turn of the loop together, and data without detours."""

    def begin(self) -> None:
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._random = b""
        self._cipher: Any = None
        transport: Any = self._transport
        transport.max_size = _RECEIVE

    def data_received(self, data: bytes, datatype: Any = None) -> None:
        # Answers to keepalive wait behind data; on a slow line that takes long, but is no silence.
        self._keepalive_count = 0
        super().data_received(data, datatype)

    def send_packet(self, pkttype: int, *args: Any, handler: Any = None) -> None:
        gcm = isinstance(self._send_encryption, asyncssh.encryption.GCMEncryption)
        if gcm and pkttype == _CHANNEL_DATA and self._is_settled():
            self._send_data(args)
        elif not (gcm and pkttype == _IGNORE):
            super().send_packet(pkttype, *args, handler=handler)

    def _is_settled(self) -> bool:
        """Whether nothing but encryption lies between a message and the wire."""
        return (
            self._kex_complete
            and self._auth_complete
            and not self._compressor
            and self._rekey_bytes_sent < self._rekey_bytes
            and not (self._rekey_seconds and time.monotonic() >= self._rekey_time)
        )

    def _send_data(self, pieces: tuple[Any, ...]) -> None:
        """What `send_packet` does, for data."""
        size = 1 + sum(map(len, pieces))
        padding = -(self._send_enchdrlen + size) % self._send_blocksize
        if padding < 4:
            padding += self._send_blocksize
        head = bytes((padding, _CHANNEL_DATA))
        packet = b"".join((head, *pieces, self._take_random(padding)))
        header = len(packet).to_bytes(4, "big")
        self._send(header)
        self._send(self._seal(header, packet))
        self._send_seq = (self._send_seq + 1) & 0xFFFFFFFF
        self._rekey_bytes_sent += len(packet)

    def _seal(self, header: bytes, packet: bytes) -> bytes:
        encryption: Any = self._send_encryption
        cipher = encryption._cipher
        if cipher is not self._cipher:
            self._cipher, self._aead = cipher, AESGCM(cipher._key)
        sealed = self._aead.encrypt(cipher._iv, packet, header)
        cipher._update_iv()
        return sealed

    def _take_random(self, size: int) -> bytes:
        if len(self._random) < size:
            self._random = os.urandom(_RANDOM)
        taken, self._random = self._random[:size], self._random[size:]
        return taken

    def _send(self, data: bytes) -> None:
        if not self._transport:
            return
        if not self._unsent:
            self._loop.call_soon(self._flush, self._transport)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if self._unsent_bytes >= _TOGETHER:
            self._flush(self._transport)

    def _flush(self, transport: asyncio.Transport) -> None:
        data = b"".join(self._unsent)
        self._unsent.clear()
        self._unsent_bytes = 0
        if data:
            transport.write(data)


class LeanChannel(asyncssh.SSHClientChannel[bytes]):
    """Keeps what is written as it is until it is encrypted."""

    def write(self, data: bytes, datatype: Any = None) -> None:
        self.writelines([data], datatype)

    def writelines(self, list_of_data: Any, datatype: Any = None) -> None:
        del datatype
        if self._send_state != "open":
            raise BrokenPipeError("Channel not open for sending")
        pieces = [memoryview(data) for data in list_of_data if data]
        self._unsent.extend(pieces)
        self._send_buf_len += sum(map(len, pieces))
        self._flush_send_buf()

    @property
    def _unsent(self) -> Any:
        return self._send_buf

    def _flush_send_buf(self) -> None:
        while self._unsent and self._send_window:
            pieces = self._take(min(self._send_window, self._send_pktsize))
            size = sum(map(len, pieces))
            self._send_buf_len -= size
            self._send_window -= size
            length = size.to_bytes(4, "big")
            self.send_packet(_CHANNEL_DATA, length, *pieces)
        super()._flush_send_buf()  # There is nothing left that it could send, but perhaps an end.

    def send_packet(self, pkttype: int, *args: Any) -> None:
        if self._send_chan is not None and self._conn is not None:
            channel = self._send_chan.to_bytes(4, "big")
            self._conn.send_packet(pkttype, channel, *args, handler=self)

    def _take(self, size: int) -> list[memoryview]:
        """The next bytes that are unsent, as pieces."""
        taken = []
        while self._unsent and size:
            piece = self._unsent[0][:size]
            taken.append(piece)
            size -= len(piece)
            self._unsent[0] = self._unsent[0][len(piece) :]
            if not self._unsent[0]:
                del self._unsent[0]
        return taken


class LeanHandler(asyncssh.sftp.SFTPClientHandler):
    """Hands the data of a WRITE on as it is."""

    def send_packet(self, pkttype: int, pktid: int | None, *args: bytes) -> None:
        del pktid
        if not self._writer:
            raise asyncssh.SFTPNoConnection("Connection not open")
        if not self._writer.channel.is_closing():
            *first, last = args
            size = 1 + sum(map(len, args))
            head = b"".join((size.to_bytes(4, "big"), bytes((pkttype,)), *first))
            self._writer.writelines([head, last])

    async def write(self, handle: bytes, offset: int, data: bytes) -> int:
        request = (
            len(handle).to_bytes(4, "big") + handle,
            offset.to_bytes(8, "big"),
            len(data).to_bytes(4, "big"),
            data,
        )
        await self._make_request(_SFTP_WRITE, *request)
        return len(data)
