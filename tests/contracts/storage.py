"""The suite that every storage passes: `pipeline.stage.Storage` and `Writer`, rule by rule."""

from __future__ import annotations

import gc
import io
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.errors import Aborted, ObjectMissing, StorageError, StorageRefused
from pipeline.naming import part_name, quote_name
from pipeline.stage import CHUNK, Storage, Writer
from schemas.base import Spec

TOKEN = "01234567-20261123T031500Z-abcdef"
OTHER_TOKEN = "89abcdef-20261123T031501Z-fedcba"
NAME = "shop/crm/crm_2026-11-23T03-15-00Z.sql.zst"
MEMORY_LIMIT = 60 << 20

Stall = tuple[Storage, Callable[[], None]]


@dataclass
class Subject:
    """A storage under test, in a place of its own that is empty."""

    spec: Spec
    storage: Storage
    again: Callable[[], Storage]
    """Another storage object for the same place."""
    stalling: Callable[[], AbstractContextManager[Stall]]
    """The storage, and what makes its server (if it has one) answer no more."""

    def spec_json(self) -> str:
        return self.spec.model_dump_json(exclude_unset=True)


def put(storage: Storage, name: str, chunks: Iterable[bytes], token: str = TOKEN) -> None:
    writer = storage.create(name, token)
    for chunk in chunks:
        writer.write(chunk)
    writer.flush()
    writer.commit()


def read(storage: Storage, name: str) -> bytes:
    return b"".join(storage.open(name))


def names(storage: Storage, prefix: str = "") -> list[str]:
    return [info.name for info in storage.list(prefix)]


def everything(storage: Storage) -> list[str]:
    return [*names(storage), *storage.unfinished("")]


def push_object(subject: Subject, mib: int, *more: str) -> list[str]:
    """The command line of a process that writes an object there."""
    module = "tests.contracts.push_object"
    return [sys.executable, "-m", module, subject.spec_json(), NAME, TOKEN, str(mib), *more]


class StorageContract:
    """Derive a `Test...` class beside a fixture `subject`."""

    # Writing

    def test_nothing_is_visible_before_commit(self, subject: Subject) -> None:
        writer = subject.storage.create(NAME, TOKEN)
        writer.write(b"x" * CHUNK)
        writer.flush()
        assert names(subject.storage) == []
        assert subject.storage.unfinished("") == [part_name(NAME, TOKEN)]
        with pytest.raises(ObjectMissing):
            read(subject.storage, NAME)
        writer.abort()

    def test_commit_makes_the_whole_object_visible(self, subject: Subject) -> None:
        content = os.urandom(3 * CHUNK + 17)
        put(subject.storage, NAME, [content[:CHUNK], content[CHUNK:]])
        (info,) = subject.storage.list("")
        assert (info.name, info.size) == (NAME, len(content))
        assert read(subject.storage, NAME) == content
        assert subject.storage.unfinished("") == []

    def test_commit_without_flush_loses_nothing(self, subject: Subject) -> None:
        writer = subject.storage.create(NAME, TOKEN)
        writer.write(b"content")
        writer.commit()
        assert read(subject.storage, NAME) == b"content"

    def test_empty_object(self, subject: Subject) -> None:
        put(subject.storage, NAME, [])
        assert [info.size for info in subject.storage.list("")] == [0]
        assert list(subject.storage.open(NAME)) == []

    @pytest.mark.parametrize("sizes", [[1] * 2000, [5 * CHUNK, 1, 5 * CHUNK], [255 << 10, 261121]])
    def test_chunks_of_any_size(self, subject: Subject, sizes: list[int]) -> None:
        content = os.urandom(sum(sizes))
        source = io.BytesIO(content)
        put(subject.storage, NAME, (source.read(size) for size in sizes))
        assert read(subject.storage, NAME) == content

    def test_reads_in_chunks(self, subject: Subject) -> None:
        put(subject.storage, NAME, [bytes(2 * CHUNK + 1)])
        chunks = list(subject.storage.open(NAME))
        assert all(type(chunk) is bytes and 0 < len(chunk) <= CHUNK for chunk in chunks)

    def test_an_existing_object_is_not_overwritten(self, subject: Subject) -> None:
        put(subject.storage, NAME, [b"first"])
        with pytest.raises(StorageRefused, match="already exists"):
            put(subject.storage, NAME, [b"second"], OTHER_TOKEN)
        assert read(subject.storage, NAME) == b"first"

    def test_the_slower_of_two_writers_of_a_name_is_refused(self, subject: Subject) -> None:
        slow = subject.storage.create(NAME, OTHER_TOKEN)
        slow.write(b"slow")
        put(subject.storage, NAME, [b"fast"])
        with pytest.raises(StorageRefused, match="already exists"):
            slow.commit()
        slow.abort()
        assert read(subject.storage, NAME) == b"fast"
        assert everything(subject.storage) == [NAME]

    def test_a_run_writes_a_name_once_at_a_time(self, subject: Subject) -> None:
        writer = subject.storage.create(NAME, TOKEN)
        with pytest.raises(StorageRefused, match="being written"):
            subject.storage.create(NAME, TOKEN)
        writer.write(b"content")
        writer.commit()
        assert read(subject.storage, NAME) == b"content"

    def test_two_writers_in_two_threads(self, subject: Subject) -> None:
        contents = {f"a/x{number}": os.urandom(4 * CHUNK + number) for number in range(4)}
        threads = [
            threading.Thread(target=put, args=(subject.storage, name, [content]))
            for name, content in contents.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {name: read(subject.storage, name) for name in contents} == contents

    def test_writing_where_others_delete(self, subject: Subject) -> None:
        # Who deletes the last object of a directory may remove the directory under the others.
        def come_and_go(name: str) -> None:
            for _ in range(25):
                put(subject.storage, name, [b"content"])
                subject.storage.delete([name])
            done.append(name)

        done: list[str] = []
        threads = [threading.Thread(target=come_and_go, args=(f"a/b/{n}",)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(done) == 3
        assert everything(subject.storage) == []

    # Aborting

    def test_abort_leaves_nothing(self, subject: Subject) -> None:
        writer = subject.storage.create(NAME, TOKEN)
        for _ in range(20):
            writer.write(b"x" * CHUNK)
        writer.abort()
        assert everything(subject.storage) == []

    def test_abort_twice(self, subject: Subject) -> None:
        writer = subject.storage.create(NAME, TOKEN)
        writer.write(b"content")
        writer.abort()
        writer.abort()
        assert everything(subject.storage) == []

    def test_abort_before_the_first_write(self, subject: Subject) -> None:
        subject.storage.create(NAME, TOKEN).abort()
        assert everything(subject.storage) == []

    def test_abort_after_commit_does_nothing(self, subject: Subject) -> None:
        writer = subject.storage.create(NAME, TOKEN)
        writer.write(b"content")
        writer.commit()
        writer.abort()
        assert read(subject.storage, NAME) == b"content"

    @pytest.mark.parametrize("call", ["write", "flush", "commit"])
    def test_nothing_works_after_abort(self, subject: Subject, call: str) -> None:
        writer = subject.storage.create(NAME, TOKEN)
        writer.write(b"content")
        writer.abort()
        with pytest.raises(Aborted):
            writer.write(b"more") if call == "write" else getattr(writer, call)()
        assert everything(subject.storage) == []

    def test_a_name_can_be_written_again_after_abort(self, subject: Subject) -> None:
        subject.storage.create(NAME, TOKEN).abort()
        put(subject.storage, NAME, [b"content"])
        assert read(subject.storage, NAME) == b"content"

    def test_abort_ends_a_blocked_write(self, subject: Subject) -> None:
        with subject.stalling() as (storage, stall):
            writer = storage.create(NAME, TOKEN)
            stall()
            started = threading.Event()
            ends: list[BaseException] = []

            def write_forever() -> None:
                try:
                    while True:
                        writer.write(b"x" * CHUNK)
                        started.set()
                except Aborted as end:
                    ends.append(end)

            thread = threading.Thread(target=write_forever)
            thread.start()
            started.wait()
            writer.abort()
            thread.join()
            assert [type(end) for end in ends] == [Aborted]

    def test_abort_ends_a_blocked_flush(self, subject: Subject) -> None:
        with subject.stalling() as (storage, stall):
            writer = storage.create(NAME, TOKEN)
            writer.write(b"x" * CHUNK)
            stall()
            thread = threading.Thread(target=_flush_quietly, args=(writer,))
            thread.start()
            writer.abort()
            thread.join()
            with pytest.raises(Aborted):
                writer.commit()
        assert names(subject.storage) == []

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
        facts = subject.storage.probe()
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


def _flush_quietly(writer: Writer) -> None:
    try:
        writer.flush()
    except Aborted:
        return


def _held() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
