"""What the window of an SFTP upload knows of a stream, without a server."""

from __future__ import annotations

from stages.storages._sftp.window import Window


def test_answers_come_in_any_order() -> None:
    window = Window(4)
    for blocks in window.cut(b"0123456789ab"):
        window.add(blocks)
    assert (window.reached, window.end) == (0, 12)
    window.acknowledge(8)
    # A server that holds less than this has lost something, even if the first block is missing.
    assert window.reached == 12
    assert [(offset, bytes(block)) for offset, block in window.since(0)] == [
        (0, b"0123"),
        (4, b"4567"),
    ]
    window.acknowledge(0)
    assert window.reached == 12
