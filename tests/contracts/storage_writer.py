"""The part of the storage suite that is about `pipeline.stage.Writer`."""

from __future__ import annotations

import io
import os
import threading

import pytest

from pipeline.errors import Aborted, ObjectMissing, StorageRefused
from pipeline.naming import part_name
from pipeline.stage import CHUNK, Writer
from tests.contracts.storage_subject import (
    NAME,
    OTHER_TOKEN,
    TOKEN,
    Subject,
    everything,
    names,
    put,
    read,
)


class WriterContract:
    """Everything between `create` and `commit` or `abort`; needs a fixture `subject`."""

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
    def test_nothing_works_after_commit(self, subject: Subject, call: str) -> None:
        writer = subject.storage.create(NAME, TOKEN)
        writer.write(b"content")
        writer.commit()
        with pytest.raises(Aborted):
            writer.write(b"more") if call == "write" else getattr(writer, call)()
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

    def test_abort_ends_a_blocked_commit(self, subject: Subject) -> None:
        with subject.stalling() as (storage, stall):
            writer = storage.create(NAME, TOKEN)
            writer.write(b"content")
            writer.flush()
            stall()
            committed: list[bool] = []

            def commit() -> None:
                try:
                    writer.commit()
                except Aborted:
                    committed.append(False)
                else:
                    committed.append(True)

            thread = threading.Thread(target=commit)
            thread.start()
            writer.abort()
            thread.join()
        assert names(subject.storage) == [NAME] * committed[0]


def _flush_quietly(writer: Writer) -> None:
    try:
        writer.flush()
    except Aborted:
        return
