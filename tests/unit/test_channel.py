"""The channel: bounded in bytes, an explicit end, and nobody left waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pipeline.channel import Channel, Trailer, Truncated
from pipeline.errors import Aborted


@contextmanager
def in_thread(body: Callable[[], None]) -> Iterator[list[BaseException]]:
    """Run `body` beside the block; what it raises is in the list afterwards."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            body()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield errors
    thread.join(10)
    assert not thread.is_alive()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_chunks_arrive_in_order_with_the_trailer() -> None:
    channel = Channel(100)
    channel.send(b"one")
    channel.send(b"two")
    channel.finish(Trailer(6, "digest"))
    assert list(channel) == [b"one", b"two"]
    assert channel.trailer == Trailer(6, "digest")


def test_an_empty_stream_ends_well() -> None:
    channel = Channel(100)
    channel.finish(Trailer(0))
    assert list(channel) == []
    assert channel.trailer == Trailer(0)


def test_a_full_channel_holds_the_producer_back() -> None:
    channel = Channel(10)
    channel.send(b"12345")
    channel.send(b"67890")
    with in_thread(lambda: channel.send(b"x")) as errors:
        time.sleep(0.05)
        assert channel.sent == 10
        reader = iter(channel)
        assert next(reader) == b"12345"
        wait_until(lambda: channel.sent == 11)
    assert not errors


def test_a_chunk_larger_than_the_capacity_passes_an_empty_channel() -> None:
    channel = Channel(4)
    channel.send(b"123456789")
    channel.finish(Trailer(9))
    assert list(channel) == [b"123456789"]


def test_never_more_than_capacity_is_inside() -> None:
    channel = Channel(1000)
    most = 0

    def produce() -> None:
        for _ in range(2000):
            channel.send(b"x" * 37)
        channel.finish(Trailer(2000 * 37))

    with in_thread(produce) as errors:
        for _ in channel:
            most = max(most, channel.fill)
    assert not errors
    assert most <= 1000


def test_the_consumer_waits_for_the_trailer_and_does_not_take_silence_for_the_end() -> None:
    channel = Channel(100)
    channel.send(b"data")
    seen: list[bytes] = []

    with in_thread(lambda: seen.extend(channel)) as errors:
        wait_until(lambda: channel.received == 4)
        time.sleep(0.05)
        channel.abort()  # the producer died
    assert isinstance(errors[0], Aborted)
    assert channel.trailer is None


def test_a_trailer_that_promises_more_than_came_is_an_error() -> None:
    channel = Channel(100)
    channel.send(b"data")
    channel.finish(Trailer(5))
    with pytest.raises(Truncated):
        list(channel)
    assert channel.trailer is None


def test_abort_wakes_a_waiting_producer() -> None:
    channel = Channel(4)
    channel.send(b"1234")
    with in_thread(lambda: channel.send(b"5")) as errors:
        time.sleep(0.02)
        channel.abort()
    assert isinstance(errors[0], Aborted)


def test_abort_wakes_a_waiting_consumer() -> None:
    channel = Channel(4)
    with in_thread(lambda: list(channel) and None) as errors:
        time.sleep(0.02)
        channel.abort()
    assert isinstance(errors[0], Aborted)


def test_after_abort_both_ends_raise_even_with_data_inside() -> None:
    channel = Channel(100)
    channel.send(b"data")
    channel.finish(Trailer(4))
    channel.abort()
    channel.abort()
    with pytest.raises(Aborted):
        next(iter(channel))
    with pytest.raises(Aborted):
        channel.send(b"more")


def test_it_is_empty_until_the_end_is_known() -> None:
    channel = Channel(100)
    assert channel.is_empty
    channel.send(b"data")
    assert not channel.is_empty
    next(iter(channel))
    assert channel.is_empty
    channel.finish(Trailer(4))
    assert not channel.is_empty
