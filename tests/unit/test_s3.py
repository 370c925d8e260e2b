"""S3 without a server: part sizes, what errors mean, what the model refuses."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import (  # type: ignore[import-untyped]
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import StorageDenied, StorageRefused, StorageUnavailable
from schemas.s3 import S3Storage
from stages.storages._s3.errors import translate
from stages.storages._s3.http import Stalled
from stages.storages._s3.parts import (
    MAX_PARTS,
    PartPlan,
    capacity,
    in_flight,
    largest_part,
    part_size,
)

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
FIRST = 8 * MIB


def parts_of(size: int, first: int, largest: int) -> list[int]:
    """The sizes of the parts that a stream of `size` bytes is cut into."""
    parts: list[int] = []
    while size > 0:
        parts.append(min(size, part_size(len(parts) + 1, first, largest)))
        size -= parts[-1]
    return parts


class TestPartSizes:
    @given(st.integers(5 * MIB, GIB), st.integers(MIB, 5 * TIB))
    def test_the_largest_object_fits(self, first: int, max_size: int) -> None:
        largest = largest_part(first, max_size)
        assert first <= largest <= GIB
        assert capacity(first, largest) >= max_size

    def test_capacity_is_the_sum_of_all_parts(self) -> None:
        for largest in (FIRST, 64 * MIB, GIB):
            sizes = [part_size(number, FIRST, largest) for number in range(1, MAX_PARTS + 1)]
            assert capacity(FIRST, largest) == sum(sizes)

    def test_a_stream_of_five_tebibytes(self) -> None:
        parts = parts_of(5 * TIB, FIRST, largest_part(FIRST, 5 * TIB))
        assert sum(parts) == 5 * TIB
        assert len(parts) <= MAX_PARTS
        assert min(parts[:-1]) >= 5 * MIB
        assert max(parts) <= 5 * GIB

    def test_what_would_be_ten_thousand_and_one_equal_parts(self) -> None:
        size = 10_001 * FIRST
        assert len(parts_of(size, FIRST, FIRST)) == MAX_PARTS + 1
        assert len(parts_of(size, FIRST, largest_part(FIRST, size))) < MAX_PARTS
        assert len(parts_of(size, FIRST, largest_part(FIRST, 5 * TIB))) < MAX_PARTS

    def test_parts_stay_small_as_long_as_they_can(self) -> None:
        assert part_size(700, FIRST, GIB) == FIRST
        assert part_size(701, FIRST, GIB) == 2 * FIRST
        assert largest_part(FIRST, 78 * GIB) == FIRST

    @pytest.mark.parametrize(
        ("size", "parallel", "expected"),
        [(FIRST, 4, 4), (2 * FIRST, 4, 2), (GIB, 4, 2), (GIB, 1, 1), (2 * FIRST, 12, 6)],
    )
    def test_larger_parts_go_fewer_at_once(self, size: int, parallel: int, expected: int) -> None:
        assert in_flight(size, FIRST, parallel) == expected

    @pytest.mark.parametrize(
        ("max_size", "memory"),
        [(GIB, 40 * MIB), (100 * GIB, 48 * MIB), (TIB, 768 * MIB), (5 * TIB, 3 * GIB)],
    )
    def test_memory(self, max_size: int, memory: int) -> None:
        assert PartPlan(FIRST, 4, max_size).memory == memory


def answer(code: str, status: int) -> ClientError:
    told = {"Error": {"Code": code, "Message": "Told So."}}
    return ClientError({**told, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "kind", "text"),
        [
            (answer("SlowDown", 503), StorageUnavailable, "could not read: told So (SlowDown)"),
            (answer("InternalError", 500), StorageUnavailable, "told So (InternalError)"),
            (answer("RequestTimeout", 400), StorageUnavailable, "told So"),
            (answer("BadDigest", 400), StorageUnavailable, "told So"),
            (answer("TooManyRequests", 429), StorageUnavailable, "told So"),
            (answer("QuotaExceeded", 403), StorageRefused, "has no room"),
            (answer("XMinioStorageFull", 507), StorageRefused, "has no room"),
            (answer("AccessDenied", 403), StorageDenied, "did not permit to read"),
            (answer("403", 403), StorageDenied, "did not permit to read"),
            (answer("RequestTimeTooSkewed", 403), StorageRefused, "set the clock"),
            (answer("ExpiredToken", 400), StorageRefused, "get a new session_token"),
            (answer("NoSuchBucket", 404), StorageRefused, 'bucket "b" does not exist on "s"'),
            (answer("InvalidStorageClass", 400), StorageRefused, "refused to read"),
            (answer("NotImplemented", 501), StorageRefused, "refused to read"),
            (EndpointConnectionError(endpoint_url="x"), StorageUnavailable, "cannot reach"),
            (ConnectTimeoutError(endpoint_url="x"), StorageUnavailable, "cannot reach"),
            (ConnectionResetError(104, "Reset by peer"), StorageUnavailable, "reset by peer"),
            (Stalled(), StorageUnavailable, '"s" stands still, could not read'),
            (NoCredentialsError(), StorageRefused, "no credentials found"),
            (ParamValidationError(report="Key is odd."), StorageRefused, "key is odd"),
        ],
    )
    def test_meaning(self, error: Exception, kind: type[Exception], text: str) -> None:
        failure = translate(error, "s", "b", "read")
        assert type(failure) is kind
        assert text.lower() in str(failure).lower()


class TestModel:
    @pytest.mark.parametrize(
        ("values", "problem"),
        [
            ({"access_key": "a"}, "set both or none"),
            ({"secret_key": "s"}, "set both or none"),
            ({"session_token": "t"}, "needs access_key"),
            ({"profile": "p", "access_key": "a", "secret_key": "s"}, "exclude each other"),
            ({"kms_key": "k"}, "set encryption to kms"),
            ({"endpoint": "s3.example.net"}, "address of a service"),
            ({"endpoint": "https://s3.example.net/path"}, "address of a service"),
            ({"path": "/a"}, "no slash at its ends"),
            ({"path": "a//b"}, "no empty part"),
            ({"part_size": "4MiB"}, "greater than or equal"),
            ({"max_size": "6TiB"}, "less than or equal"),
            ({"tags": {str(number): "" for number in range(11)}}, "at most 10"),
        ],
    )
    def test_refused(self, values: dict[str, Any], problem: str) -> None:
        with pytest.raises(ValidationError, match=problem):
            S3Storage(type="s3", bucket="b", **values)
