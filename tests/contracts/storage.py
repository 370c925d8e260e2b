"""The suite that every storage passes: `pipeline.stage.Storage` and `Writer`, rule by rule."""

from __future__ import annotations

import gc
import os
import secrets
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ObjectMissing, StorageError, StorageRefused
from pipeline.naming import part_name, quote_name
from pipeline.stage import CHUNK
from pipeline.tryout import try_out
from tests.contracts.storage_subject import (
    NAME,
    TOKEN,
    Subject,
    everything,
    names,
    push_object,
    put,
    read,
)
from tests.contracts.storage_writer import WriterContract

MEMORY_LIMIT = 60 << 20


class StorageContract(WriterContract):
    """Derive a `Test...` class beside a fixture `subject`."""

    # What others left behind

    def test_a_dropped_writer_is_swept(self, subject: Subject) -> None:
        writer = subject.storage.create(NAME, TOKEN)
        writer.write(b"content")
        writer.flush()
        del writer
        gc.collect()
        part = part_name(NAME, TOKEN)
        assert names(subject.storage) == []
        assert subject.storage.unfinished("") == [part]
        assert subject.storage.unfinished("shop/crm") == [part]
        assert subject.storage.unfinished("shop/c") == []
        subject.storage.sweep([part])
        assert everything(subject.storage) == []
        subject.storage.sweep([part])

    def test_sweep_removes_unfinished_objects_only(self, subject: Subject) -> None:
        put(subject.storage, NAME, [b"content"])
        with pytest.raises(StorageRefused):
            subject.storage.sweep([NAME])
        assert names(subject.storage) == [NAME]

    def test_a_writer_notices_that_it_was_swept(self, subject: Subject) -> None:
        writer = subject.storage.create(NAME, TOKEN)
        writer.write(b"content")
        subject.storage.sweep([part_name(NAME, TOKEN)])
        with pytest.raises(StorageError):
            writer.commit()
        writer.abort()
        assert everything(subject.storage) == []

    # Listing, reading, deleting

    def test_list_is_sorted_and_knows_directories(self, subject: Subject) -> None:
        written = ["a/b/2", "a/bc/1", "a/b/1", "a/b.x", "b/a", "a/b-/0", "top"]
        for name in written:
            put(subject.storage, name, [name.encode()])
        assert names(subject.storage) == sorted(written)
        assert names(subject.storage, "a/b") == ["a/b/1", "a/b/2"]
        assert names(subject.storage, "a") == sorted(name for name in written if name[:2] == "a/")

    @pytest.mark.parametrize("prefix", ["", "nowhere", "nowhere/at/all", "a/b/c"])
    def test_a_prefix_that_does_not_exist_is_empty(self, subject: Subject, prefix: str) -> None:
        storage = subject.storage
        if prefix:
            put(storage, "a/b", [b"a file, where a directory is asked for"])
        assert storage.list(prefix) == []
        assert storage.unfinished(prefix) == []

    def test_missing_object_cannot_be_read(self, subject: Subject) -> None:
        put(subject.storage, "a/b", [b"content"])
        for name in ("a/c", "c/d", "a/b/c"):
            with pytest.raises(ObjectMissing, match=f'"{name}" does not exist'):
                read(subject.storage, name)

    @pytest.mark.parametrize("offset", [0, 1, CHUNK, 3 * CHUNK + 16, 3 * CHUNK + 17])
    def test_reading_may_start_anywhere(self, subject: Subject, offset: int) -> None:
        content = os.urandom(3 * CHUNK + 17)
        put(subject.storage, NAME, [content])
        assert b"".join(subject.storage.open(NAME, offset)) == content[offset:]

    def test_reading_beyond_the_end_is_no_empty_object(self, subject: Subject) -> None:
        put(subject.storage, NAME, [b"content"])
        with pytest.raises(StorageRefused, match="ended early"):
            list(subject.storage.open(NAME, 8))

    def test_delete(self, subject: Subject) -> None:
        for name in ("a/1", "a/2", "b/1"):
            put(subject.storage, name, [b"content"])
        subject.storage.delete(["a/1", "b/1", "a/missing", "missing/1"])
        assert names(subject.storage) == ["a/2"]
        subject.storage.delete(["a/1", "a/2"])
        assert names(subject.storage) == []
        put(subject.storage, "a/1", [b"again"])
        assert read(subject.storage, "a/1") == b"again"

    @pytest.mark.parametrize(
        "base",
        [
            quote_name("a/b c%~.d"),
            quote_name(".hidden\udcff\n'\"*?[x]"),
            "raw ünïcödé 日本語 файл",
            "blank and 'quotes' \"*?[x]$(y)`z`;&|<>\\#!{}",
            os.fsdecode(b"\xff\xfe"),
            "n" * 200,
            "-rf",
            "a..b",
        ],
    )
    def test_odd_names(self, subject: Subject, base: str) -> None:
        name = f"shop/{base[:100]}/{base}"
        put(subject.storage, name, [b"content"])
        assert names(subject.storage, f"shop/{base[:100]}") == [name]
        assert read(subject.storage, name) == b"content"
        subject.storage.delete([name])
        assert everything(subject.storage) == []

    @pytest.mark.parametrize(
        "name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".x", "a/.x/b", "a\0b"]
    )
    def test_names_stay_inside(self, subject: Subject, name: str) -> None:
        storage = subject.storage
        refused: list[Callable[[], object]] = [
            lambda: storage.create(name, TOKEN),
            lambda: read(storage, name),
            lambda: storage.delete([name]),
            lambda: storage.sweep([part_name(name, TOKEN)]),
        ]
        if name:
            refused += [lambda: storage.list(name), lambda: storage.unfinished(name)]
        for call in refused:
            with pytest.raises(StorageRefused):
                call()

    def test_a_reader_may_stop_early(self, subject: Subject) -> None:
        put(subject.storage, NAME, [os.urandom(20 * CHUNK)])
        reader = subject.storage.open(NAME)
        assert next(reader)
        reader.close()  # type: ignore[attr-defined]
        assert len(read(subject.storage, NAME)) == 20 * CHUNK

    # The storage as a whole

    def test_probe_leaves_nothing(self, subject: Subject) -> None:
        rights = try_out(subject.storage)
        assert rights.can == ("written", "listed", "read", "deleted", "swept")
        facts = [*subject.storage.probe(), *rights.facts()]
        assert facts
        assert all(fact and "\n" not in fact for fact in facts)
        assert everything(subject.storage) == []

    def test_two_storages_of_one_place_see_the_same(self, subject: Subject) -> None:
        put(subject.storage, NAME, [b"content"])
        other = subject.again()
        assert read(other, NAME) == b"content"
        other.close()

    def test_usable_after_close(self, subject: Subject) -> None:
        put(subject.storage, NAME, [b"content"])
        subject.storage.close()
        subject.storage.close()
        assert read(subject.storage, NAME) == b"content"

    def test_close_leaks_neither_descriptors_nor_threads(self, subject: Subject) -> None:
        subject.storage.probe()  # Imports what it needs.
        subject.storage.close()
        before = _held()
        for round_number in range(3):
            name = f"{NAME}{round_number}"
            put(subject.storage, name, [secrets.token_bytes(CHUNK)])
            next(subject.storage.open(name))
            subject.storage.create("a/aborted", TOKEN).abort()
            subject.storage.create("a/dropped", f"{TOKEN[:-1]}{round_number}")
            with pytest.raises(StorageRefused):
                subject.storage.create(name, TOKEN)
            subject.storage.close()
        assert _held() == before


class LastingStorageContract:
    """More, for storages that outlive a process; they need a fixture `lasting`."""

    def test_a_killed_process_is_swept(self, lasting: Subject) -> None:
        with subprocess.Popen(push_object(lasting, 20, "hang"), stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline()
            process.kill()
        assert names(lasting.storage) == []
        assert lasting.storage.unfinished("") == [part_name(NAME, TOKEN)]
        lasting.storage.sweep(lasting.storage.unfinished(""))
        assert everything(lasting.storage) == []

    def test_memory_is_bounded(self, lasting: Subject) -> None:
        process = subprocess.run(push_object(lasting, 256), stdout=subprocess.PIPE, check=True)
        written, was_read = (int(line) for line in process.stdout.split())
        assert written < MEMORY_LIMIT
        assert was_read < MEMORY_LIMIT
        assert [info.size for info in lasting.storage.list("")] == [256 * CHUNK]


def _held() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
