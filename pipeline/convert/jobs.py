"""Jobs: each source of a job becomes a backup, since each has its own place on the storages."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.convert.files import files_source
from pipeline.convert.mongodb import mongodb, redis
from pipeline.convert.mysql import mysql, mysql_physical
from pipeline.convert.notes import Notes, free_name, plain_name
from pipeline.convert.postgres import excluded_tables, postgres, postgres_physical
from pipeline.convert.servers import Where
from pipeline.convert.storages import Places, place_of
from schemas.problems import Path
from schemas.v3.model import Config, Job, Limits, Source, StorageOptions

Block = dict[str, Any]


def convert_jobs(config: Config, places: Places, notifiers: list[str], notes: Notes) -> Block:
    """Our `backups`, in the order of the jobs."""
    backups: Block = {}
    for number, job in enumerate(config.jobs):
        path: Path = ("jobs", number)
        _about(job, path, notes)
        parts = list(_parts(job, path))
        if not parts:
            notes.danger((*path, "sources"), "has no source: v3 saved nothing, and called it well")
        for part in parts:
            base = plain_name(job.job_name, "job")
            if len(job.sources) > 1:
                base = plain_name(f"{base}-{part.source.name}", base)
            name = free_name(plain_name(f"{base}-{part.suffix}", base), backups)
            notes.comment(("backups", name), f"job {job.job_name} of v3, source {part.source.name}")
            converted = _Conversion(config, job, path, part, name, places, notes)
            backups[name] = converted.block(notifiers)
    return backups


@dataclass(frozen=True)
class _Part:
    """A source of a job; one of several for a database that has excludes of its own."""

    source: Source
    path: Path
    suffix: str = ""


def _parts(job: Job, path: Path) -> Iterator[_Part]:
    if job.type == "external":
        yield _Part(Source(name=job.job_name), path)
    for number, source in enumerate(job.sources if job.type != "external" else ()):
        here: Path = (*path, "sources", number)
        if job.type == "postgresql":
            yield from _postgres_parts(source, here)
        else:
            yield _Part(source, here)


def _postgres_parts(source: Source, path: Path) -> Iterator[_Part]:
    """pg_dump excludes tables in one database; ours does in all of a backup, so it gets its own."""
    of_one = sorted({database for database, _ in excluded_tables(source)})
    names = set(source.target_dbs) - set(source.excludes)
    if not of_one or (len(names) == 1 and "all" not in names):
        yield _Part(source, path)
        return
    others = [name for name in source.target_dbs if name not in of_one]
    plain = [name for name in source.excludes if "." not in name]
    if others:
        yield _Part(
            source.model_copy(update={"target_dbs": others, "excludes": plain + of_one}), path
        )
    for database in of_one:
        if database in plain or not {database, "all"} & set(source.target_dbs):
            continue
        own = [name for name in source.excludes if name.startswith(f"{database}.")]
        update = {"target_dbs": [database], "excludes": own}
        yield _Part(source.model_copy(update=update), path, database)


@dataclass(frozen=True)
class _Conversion:
    """One backup of ours."""

    config: Config
    job: Job
    path: Path
    part: _Part
    name: str
    places: Places
    notes: Notes

    def block(self, notifiers: list[str]) -> Block:
        block: Block = {"source": self._source()}
        gzip = self.job.gzip if self.part.source.gzip is None else self.part.source.gzip
        if gzip:
            block["stages"] = [{"type": "gzip"}]
            self.notes.changed(
                self.part.path, "gzip has level 6 instead of 9; zstd would be smaller and faster"
            )
        block["fan_out"] = list(self._branches())
        kinds = {self._kind(options) for options in self.job.storages_options}
        if self.job.type == "inc_files" and kinds and kinds <= {"smb", "webdav"}:
            self.notes.danger(
                self.path,
                "v3 lost its index on SMB and WebDAV: each run removed all earlier copies",
            )
        if notifiers:
            block["notify"] = list(notifiers)
        return block

    def _source(self) -> Block:
        if self.job.type == "external":
            return self._external()
        if self.job.type in ("desc_files", "inc_files"):
            is_incremental = self.job.type == "inc_files"
            return files_source(self.part.source, self.part.path, is_incremental, self.notes)
        where = Where(self.job, self.part.source, self.part.path, self.name, self._disk_rate)
        source = _DATABASES[self.job.type](where, self.notes)
        if self.part.suffix:
            source["globals"] = False  # The other part of the source has them.
        return source

    def _external(self) -> Block:
        command = self.notes.text((*self.path, "dump_cmd"), self.job.dump_cmd)
        if self.job.skip_backup_rotate:
            self.notes.decide(
                (*self.path, "skip_backup_rotate"),
                "v3 delivered nothing for this job: does the program print the path of a file?",
                ("backups", self.name, "source"),
            )
        self.notes.danger(
            (*self.path, "dump_cmd"),
            "the program has to write a file first; `prints: stream` would need no local space",
        )
        return {"type": "command", "command": [command], "prints": "path"}

    def _branches(self) -> Iterator[Block]:
        """One for each place: two storages of v3 may have been the same."""
        seen = set()
        for number, options in enumerate(self.job.storages_options):
            branch = self._branch(options, (*self.path, "storages_options", number))
            if branch["storage"] not in seen:
                yield branch
            seen.add(branch["storage"])

    def _branch(self, options: StorageOptions, path: Path) -> Block:
        storage = place_of(self.places, options.storage_name, options.backup_path)
        block: Block = {"storage": storage}
        rate = self._rate(options)
        if rate:
            block["stages"] = [{"type": "throttle", "rate": _rate_text(rate)}]
        if options.enable_rotate and not self.job.skip_backup_rotate:
            policy = self._policy(options, path)
            if policy:
                block["rotate"] = policy
        directory = posixpath.normpath(self.part.source.name).strip("/")
        if any(part.startswith(".") for part in directory.split("/")):
            message = "copies of v3 in a directory that begins with a dot are not found"
            self.notes.decide(self.part.path, message, self._place)
            return block
        block["legacy"] = "nxs-v3"
        if directory != self.name:
            block["legacy_directory"] = directory
        return block

    def _kind(self, options: StorageOptions) -> str:
        connects = self.config.storage_connects
        return next((c.kind for c in connects if c.name == options.storage_name), "local")

    def _policy(self, options: StorageOptions, path: Path) -> Block:
        """The rules that keep at least what v3 kept."""
        retention, key = options.retention, (*path, "retention")
        if self.job.type == "inc_files":
            self.notes.danger(
                key,
                "old months were removed although later ones build on them; now what is needed "
                "stays, also the full copies of earlier years",
            )
            if self._kind(options) in _INCREMENTS:
                self.notes.danger(key, _INCREMENTS[self._kind(options)])
            return {"within": f"{max(retention.months, 1) * 31}d"}
        policy: Block = {}
        if retention.days:
            rule = "last" if retention.count_instead_of_period else "within"
            policy[rule] = retention.days if rule == "last" else f"{retention.days}d"
        policy.update({k: n for k in ("weeks", "months") if (n := getattr(retention, k))})
        policy = {_RULES.get(rule, rule): value for rule, value in policy.items()}
        if not policy:
            self.notes.decide(key, "v3 made no backup at all for this storage", self._place)
        elif not retention.days:
            self.notes.decide(
                key, "v3 made backups only on Sundays and on the 1st: set a schedule", self._place
            )
        self.notes.changed(
            key,
            "rotation goes by the time in the manifest, not of the file; `weekly` keeps the newest "
            "of a week, not that of Sunday, `monthly` the newest of a month, not that of the 1st",
        )
        return policy

    @property
    def _place(self) -> Path:
        return ("backups", self.name, "fan_out")

    @property
    def _limits(self) -> list[Limits]:
        return [each for each in (self.job.limits, self.config.limits) if each is not None]

    @property
    def _disk_rate(self) -> int | None:
        return next((each.disk_rate for each in self._limits if each.disk_rate is not None), None)

    def _rate(self, options: StorageOptions) -> int | None:
        """Bytes per second to a storage; the limits that v3 has, and loses for all but jobs."""
        if options.storage_name == "local":
            return self._disk_rate
        if self.job.limits and self.job.limits.net_rate is not None:
            return self.job.limits.net_rate
        connects = enumerate(self.config.storage_connects)
        number, connect = next((n, c) for n, c in connects if c.name == options.storage_name)
        if connect.rate_limit is not None:
            path: Path = ("storage_connects", number, "rate_limit")
            self.notes.changed(path, "v3 read this limit and then did not keep to it")
            return connect.rate_limit
        rate = self.config.limits.net_rate if self.config.limits else None
        if rate:
            message = "v3 read this limit and then did not keep to it"
            self.notes.changed(("limits", "net_rate"), message)
        return rate


def _rate_text(rate: int) -> str:
    """`20MB/s`: the largest unit of v3, all powers of 1000, that leaves a whole number."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if rate % size == 0:
            return f"{rate // size}{unit}/s"
    return f"{rate}B/s"


_INCREMENTS = {
    "s3": "on S3, increments went all at once: v3 took the month from the wrong name",
    "sftp": "over SFTP, v3 could not renew its index on the 1st of a month, and failed that day",
    "scp": "over SFTP, v3 could not renew its index on the 1st of a month, and failed that day",
}
"""What v3 did to increments, by kind of storage."""
_RULES = {"weeks": "weekly", "months": "monthly"}
_DATABASES: dict[str, Callable[[Where, Notes], Block]] = {
    "mysql": mysql,
    "mysql_xtrabackup": mysql_physical,
    "mariadb_backup": mysql_physical,
    "postgresql": postgres,
    "postgresql_basebackup": postgres_physical,
    "mongodb": mongodb,
    "redis": redis,
}


def _about(job: Job, path: Path, notes: Notes) -> None:
    """What concerns the job as a whole."""
    if not job.safety_backup:
        notes.danger(
            (*path, "safety_backup"),
            "old copies were removed before the new one was made, also when that then failed",
        )
    if job.tmp_dir:
        notes.dropped((*path, "tmp_dir"), "there are no temporary files any more")
    if job.deferred_copying:
        notes.dropped((*path, "deferred_copying"), "all storages are written while it is read")
    if job.limits and job.limits.cpu_max_count is not None:
        notes.dropped((*path, "limits", "cpu_max_count"), "v3 reads it at the root only")
    if job.limits and job.limits.disk_rate:
        message = "limits what is written to the local storage; there is no temporary file"
        notes.changed((*path, "limits", "disk_rate"), message)
    if job.type == "external" and job.sources:
        notes.dropped((*path, "sources"), "a job of type external has none")
    if not job.storages_options:
        notes.danger((*path, "storages_options"), "is stored nowhere: v3 only warned")
        notes.decide((*path, "storages_options"), "where is it to be stored?")
