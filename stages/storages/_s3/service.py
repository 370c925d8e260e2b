"""The client of one S3 service: made when needed, tried again when that helps, given up in time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import random
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from botocore.loaders import create_loader  # type: ignore[import-untyped]
from botocore.utils import get_environ_proxies  # type: ignore[import-untyped]

from pipeline.errors import ConfigError, StorageRefused, StorageUnavailable
from schemas.s3 import S3Storage
from stages._tls import ssl_context
from stages.storages import _loop
from stages.storages._s3.errors import FAILURES, is_missing, translate
from stages.storages._s3.fetch import Fetcher
from stages.storages._s3.http import Progress, add_md5, session_class, while_it_moves

T = TypeVar("T")

_CONNECT_SECONDS = 10.0
_CONNECTIONS = 100
_SIGNED_SECONDS = 3600
_DEFAULT_REGION = "us-east-1"
_ROUNDS = 5
"""Of the loop, in which connections that were closed get to give their sockets back."""
_LOADER = create_loader()
"""Reads the descriptions of the service."""


@dataclass(frozen=True)
class Patience:
    """How long a failing request is tried again, in seconds; the pauses double."""

    seconds: float = 60.0
    first_pause: float = 0.25
    longest_pause: float = 8.0


SHORT = Patience(seconds=2.0)
"""For what can simply be done again later, by whoever asked for it."""


class Service:
    """One service as the owner of these credentials sees it; for any thread."""

    def __init__(self, spec: S3Storage, patience: Patience) -> None:
        self.spec = spec
        self.patience = patience
        self.bucket = spec.bucket
        self.server = _server_name(spec)
        self.is_minio = False
        """MinIO lists unfinished uploads of one key, or of the whole bucket, but of no prefix."""
        self.loop = _loop.acquire()
        self._client: Any = None
        self._fetcher: Fetcher | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_encrypted(self) -> bool:
        return not (self.spec.endpoint or "").startswith("http://")

    # From any thread

    def submit(
        self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any
    ) -> concurrent.futures.Future[T]:
        """Run a coroutine function on the loop."""
        return self.loop.submit(self._tracked(work, arguments))

    def run(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """The same, and wait for it."""
        return self.wait(self.submit(work, *arguments))

    def wait(self, future: concurrent.futures.Future[T]) -> T:
        """The result of a future from `submit`.

        Raises:
            StorageUnavailable: it was cancelled, as `close` does.
        """
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise self._was_closed() from None

    def close(self) -> None:
        """Drop all connections; what still uses them gets an error."""
        try:
            self.loop.submit(self._close()).result()
        finally:
            _loop.release(self.loop)

    # On the loop

    async def ask(
        self, operation: str, doing: str, patience: Patience = SHORT, **parameters: Any
    ) -> dict[str, Any]:
        """The answer to one request about the bucket, such as `head_object`.

        Raises:
            StorageError: it was refused, or failed for too long.
        """

        async def request() -> dict[str, Any]:
            client = await self.client()
            answer: dict[str, Any] = await getattr(client, operation)(
                Bucket=self.bucket, **parameters
            )
            self._look_at(answer)
            return answer

        def attempt(progress: Progress) -> Coroutine[Any, Any, dict[str, Any]]:
            return while_it_moves(request(), self.spec.timeout, progress)

        return await self.persist(attempt, doing, patience)

    async def ask_if_there(self, operation: str, doing: str, **parameters: Any) -> Any:
        """The same, or None when the service says that there is no such thing."""
        try:
            return await self.ask(operation, doing, **parameters)
        except StorageRefused as refused:
            if refused.__cause__ is not None and is_missing(refused.__cause__):
                return None
            raise

    def told(self, answer: dict[str, Any], what: str, doing: str) -> Any:
        """A part of an answer that no S3 service leaves out.

        Raises:
            StorageRefused: it is not there.
        """
        if answer.get(what) is None:
            hint = "is it an S3 service, and the address of its API?"
            raise StorageRefused(f'"{self.server}" told no {what}, could not {doing}', hint)
        return answer[what]

    async def persist(
        self, attempt: Callable[[Progress], Coroutine[Any, Any, T]], doing: str, patience: Patience
    ) -> T:
        """The result of an attempt that may be made again; it must end when nothing moves.

        Only the time in which nothing moved counts, from the first failure on: a slow connection
        that breaks twice is not given up for being slow.

        Raises:
            StorageError: the last attempt failed; the client's error is its cause.
        """
        loop = asyncio.get_running_loop()
        since: float | None = None
        pause = patience.first_pause
        while True:
            if self._closed:
                raise self._was_closed()
            progress = Progress()
            try:
                return await attempt(progress)
            except FAILURES as error:
                failure = translate(error, self.server, self.bucket, doing)
                if since is None or progress.lasts:
                    since, pause = loop.time(), patience.first_pause
                else:
                    since += progress.seconds
                over = loop.time() + pause > since + patience.seconds
                if over or not isinstance(failure, StorageUnavailable):
                    raise failure from error
            # Others failed at the same moment: they must not come back at the same moment too.
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(2 * pause, patience.longest_pause)

    def start(
        self, work: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any
    ) -> asyncio.Task[Any]:
        """Run a coroutine function beside the others; `close` cancels it."""
        return asyncio.get_running_loop().create_task(self._tracked(work, arguments))

    async def _tracked(
        self, work: Callable[..., Coroutine[Any, Any, T]], arguments: tuple[Any, ...]
    ) -> T:
        # A function, since a coroutine that is cancelled before it begins leaves a warning.
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await work(*arguments)
        finally:
            self._tasks.discard(task)

    async def client(self) -> Any:
        """The library's client, made by the first who needs it."""
        async with self._opening:
            if self._closed:
                raise self._was_closed()
            if self._client is None:
                self._client = await self._open()
            return self._client

    @property
    def fetcher(self) -> Fetcher:
        """For plain GETs of signed addresses; a client has been made before."""
        if self._fetcher is None:
            if self._closed:
                raise self._was_closed()
            self._fetcher = Fetcher(self._context(), self.spec.timeout)
        return self._fetcher

    async def signed_address(self, key: str) -> str:
        """An address that lets one read an object for an hour, in ranges, without credentials."""

        async def attempt() -> str:
            client = await self.client()
            of_object = {"Bucket": self.bucket, "Key": key}
            address: str = await client.generate_presigned_url(
                "get_object", Params=of_object, ExpiresIn=_SIGNED_SECONDS
            )
            return address

        return await while_it_moves(attempt(), self.spec.timeout)

    def has_proxy(self, address: SplitResult) -> bool:
        """Whether the environment wants requests to an address to go through a proxy."""
        return address.scheme in get_environ_proxies(address.geturl())

    async def _open(self) -> Any:
        spec = self.spec
        secret, token = spec.secret_key, spec.session_token
        session = _library_session(spec)
        client = session.create_client(
            "s3",
            region_name=spec.region or session.get_config_variable("region") or _DEFAULT_REGION,
            endpoint_url=spec.endpoint,
            aws_access_key_id=spec.access_key,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            aws_session_token=token.get_secret_value() if token else None,
            verify=self.is_encrypted,
            config=self._config(),
        )
        opened = await client.__aenter__()
        opened.meta.events.register("before-call.s3.DeleteObjects", add_md5)
        return opened

    def _config(self) -> AioConfig:
        spec = self.spec
        style = "path" if spec.endpoint else "virtual"
        return AioConfig(
            signature_version="s3v4",
            s3={"addressing_style": style if spec.addressing == "auto" else spec.addressing},
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=None,  # Watched over by `while_it_moves`.
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=_CONNECTIONS,
            # Many services know no checksum but MD5, which we send ourselves.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            ignore_configured_endpoint_urls=True,
            http_session_cls=session_class(self._context()),
        )

    def _context(self) -> ssl.SSLContext | None:
        host = urlsplit(self.spec.endpoint or "https://s3.amazonaws.com").hostname or ""
        try:
            return ssl_context(self.spec.tls, host) if self.is_encrypted else None
        except ConfigError as error:
            raise StorageRefused(error.message, error.hint) from None

    def _look_at(self, answer: dict[str, Any]) -> None:
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        self.is_minio = self.is_minio or headers.get("server", "").lower().startswith("minio")

    def _was_closed(self) -> StorageUnavailable:
        return StorageUnavailable(f'the connection to "{self.server}" was closed')

    async def _close(self) -> None:
        self._closed = True
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        fetcher, self._fetcher = self._fetcher, None
        if fetcher is not None:
            await fetcher.close()
        client, self._client = self._client, None
        if client is not None:
            with suppress(*FAILURES):  # What it was for is done.
                await client.__aexit__(None, None, None)
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)


def _server_name(spec: S3Storage) -> str:
    """What the service is called in messages: host and perhaps port."""
    if spec.endpoint:
        return urlsplit(spec.endpoint).netloc
    return f"s3.{spec.region}.amazonaws.com" if spec.region else "s3.amazonaws.com"


def _library_session(spec: S3Storage) -> AioSession:
    """A session that reads no files of the user when the credentials are given."""
    if spec.access_key is None:
        session = AioSession(profile=spec.profile)
    else:
        nothing = {"profile": (None, None, None, None)}
        for file in ("config_file", "credentials_file"):
            nothing[file] = (None, None, os.devnull, None)  # type: ignore[assignment]
        session = AioSession(session_vars=nothing)
    # It caches what it reads, which takes a tenth of a second each time.
    session.register_component("data_loader", _LOADER)
    return session
