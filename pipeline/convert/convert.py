"""The whole: a v3 configuration as our document, with everything there is to say about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.convert.jobs import convert_jobs
from pipeline.convert.notes import Notes, plain_name
from pipeline.convert.notifiers import convert_notifiers
from pipeline.convert.storages import convert_storages
from schemas.v3.load import Read
from schemas.v3.model import Config


@dataclass(frozen=True)
class Converted:
    """Our configuration, and what the conversion noted."""

    document: dict[str, Any]
    notes: Notes


def convert(read: Read, keep_secrets: bool = False) -> Converted:
    """Convert a configuration; the same input gives the same output."""
    notes, config = Notes(read, keep_secrets), read.config
    for path, variable in read.resolved:
        notes.changed(path, f"the present value of the variable {variable} was written down")
    storages, places = convert_storages(config, notes)
    notifiers = convert_notifiers(config, notes)
    backups = convert_jobs(config, places, list(notifiers), notes)
    document: dict[str, Any] = {"name": _project(config, notes)}
    if config.server_name not in ("", "localhost"):
        document["host"] = notes.text(("server_name",), config.server_name)
    else:
        notes.changed(("server_name",), "the name of the machine is used; `host` can set another")
    document["storages"] = storages
    if notifiers:
        document["notifiers"] = notifiers
    document["backups"] = backups
    _root(config, notes)
    return Converted(document, notes)


def _project(config: Config, notes: Notes) -> str:
    name = plain_name(config.project_name, "backups")
    if config.project_name and name != config.project_name:
        notes.changed(("project_name",), "a name is letters, digits, '_', '.' and '-'")
    return name


def _root(config: Config, notes: Notes) -> None:
    """What concerns no single job."""
    notes.decide(("jobs",), "v3 had no schedule: keep its cron job for `run`, or set `schedule`")
    notes.decide(("jobs",), "v3 encrypted nothing: add the stage age where others can read")
    notes.decide(
        ("jobs",),
        "turn v3 off before the first run: on 1 January, and when it misses its index, it empties "
        "directories that ours may share",
    )
    if config.waiting_timeout:
        notes.dropped(
            ("waiting_timeout",), "each backup has a lock of its own; a run that meets it exits 11"
        )
    if config.limits and config.limits.cpu_max_count is not None:
        notes.dropped(("limits", "cpu_max_count"), "use nice, or the limits of systemd")
    if config.limits and config.limits.disk_rate:
        message = "limits what is written to the local storage; there is no temporary file"
        notes.changed(("limits", "disk_rate"), message)
    if "server" in config.model_fields_set:
        notes.dropped(("server",), "v3 wrote metrics to a file for a second process to serve")
    if "logfile" in config.model_fields_set and config.logfile not in ("stdout", "stderr"):
        message = "logs go to stderr; `log: {file: PATH}` writes them to a file too"
        notes.dropped(("logfile",), message)
    if "loglevel" in config.model_fields_set:
        notes.dropped(("loglevel",), "use -v, -q and -qq; a file of `log` has a level of its own")
