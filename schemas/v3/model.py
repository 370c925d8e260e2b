"""The shape of a v3 configuration, with the defaults of v3 (its `ctx/conf.go`).

Unlike in our own models an unknown key is no error: the reader reports it and leaves it out. Text
may be `ENV:NAME`, which v3 replaced by a variable. What carries `FIXED` decides about the shape of
our file, so its variables are resolved while it is converted; all other text keeps the reference.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

ENV = re.compile(r"ENV:(.*)")
"""As v3 looks for it: anywhere in the text, and the rest of the text is lost."""


class Fixed:
    """Marks a value that must be known now."""


FIXED = Fixed()
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(?:([kmgtp])(?:i?b)?|b)?", re.IGNORECASE)


def _rate(value: Any) -> int:
    """Bytes per second: powers of 1000, also for `KiB`; `0` is no limit (docker/go-units)."""
    match = _SIZE.fullmatch(str(value))
    if match is None:
        raise ValueError("must be a rate; such as 10MB, which v3 takes for bytes per second")
    return int(float(match[1]) * 1000 ** (" kmgtp".index((match[2] or " ").lower())))


def _level(value: Any) -> Any:
    words = {"err": "error", "warn": "warning", "inf": "info"}
    return words.get(value.lower(), value.lower()) if isinstance(value, str) else value


def _number(value: str) -> str:
    if not re.fullmatch(r"[0-9]{0,10}", value) and not ENV.search(value):
        raise ValueError("must be a whole number, or ENV:NAME")
    return value


def _job_name(value: str) -> str:
    if value in ("files", "databases", "external"):
        raise ValueError("must not be files, databases or external; v3 has groups of that name")
    return value


Flag = Annotated[bool, FIXED]
Count = Annotated[int, FIXED, Field(ge=0, le=100_000)]
Name = Annotated[str, FIXED, Field(min_length=1)]
Number = Annotated[str, AfterValidator(_number)]
"""A number that may come from a variable when the backup runs."""
Rate = Annotated[int, FIXED, BeforeValidator(_rate)]
Level = Annotated[Literal["error", "warning", "info"], FIXED, BeforeValidator(_level)]
JobType = Literal[
    "desc_files",
    "inc_files",
    "mysql",
    "mysql_xtrabackup",
    "mariadb_backup",
    "postgresql",
    "postgresql_basebackup",
    "mongodb",
    "redis",
    "external",
]


class V3(BaseModel):
    """A block of a v3 configuration."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class Limits(V3):
    disk_rate: Rate | None = None
    net_rate: Rate | None = None
    cpu_max_count: Count | None = None


class Metrics(V3):
    enabled: Flag = True
    metrics_file_path: str = "/tmp/nxs-backup.metrics"


class Server(V3):
    bind: str = ":7979"
    metrics: Metrics = Metrics()


class Mail(V3):
    enabled: Flag = True
    mail_from: str = ""
    smtp_server: str = ""
    smtp_port: Number | None = None
    smtp_user: str = ""
    smtp_password: str = ""
    recipients: list[str] = []
    message_level: Level = "error"


class Webhook(V3):
    enabled: Flag = True
    webhook_url: str
    payload_message_key: Name
    extra_payload: dict[str, Any] = {}
    extra_headers: dict[str, str] = {}
    insecure_tls: Flag = False
    message_level: Level = "warning"


class Notifications(V3):
    mail: Mail | None = None
    webhooks: list[Webhook] = []


class S3Params(V3):
    bucket_name: str
    access_key_id: str = ""
    secret_access_key: str = ""
    endpoint: Name
    region: str
    batch_deletion: Flag = True
    secure: Flag = True


class SftpParams(V3):
    user: str
    host: str
    port: Number = "22"
    password: str = ""
    key_file: str = ""
    connection_timeout: Count = 10


class FtpParams(V3):
    host: str
    user: str = ""
    password: str = ""
    port: Number = "21"
    connect_count: Count = 5
    connection_timeout: Count = 10


class NfsParams(V3):
    host: str
    target: Annotated[str, FIXED] = ""
    uid: Number = "0"
    gid: Number = "0"
    port: Number | None = None
    """Written by v3's own generator, and refused by its own reader."""


class SmbParams(V3):
    host: str
    port: Number = "445"
    user: str = "Guest"
    password: str = ""
    domain: str = ""
    share: Name
    connection_timeout: Count = 10


class WebdavParams(V3):
    url: Name
    username: str = ""
    password: str = ""
    oauth_token: str = ""
    connection_timeout: Count = 10


class StorageConnect(V3):
    name: Name
    rate_limit: Rate | None = None
    s3_params: S3Params | None = None
    scp_params: SftpParams | None = None
    sftp_params: SftpParams | None = None
    ftp_params: FtpParams | None = None
    nfs_params: NfsParams | None = None
    webdav_params: WebdavParams | None = None
    smb_params: SmbParams | None = None

    @property
    def kind(self) -> str:
        """Which of the blocks v3 takes: the first it finds in this order."""
        kinds = ("s3", "scp", "sftp", "ftp", "nfs", "webdav", "smb")
        return next((kind for kind in kinds if getattr(self, f"{kind}_params")), "")

    @model_validator(mode="after")
    def _has_params(self) -> StorageConnect:
        if not self.kind:
            raise ValueError("says not how to connect; add s3_params, sftp_params or another")
        return self


class Connect(V3):
    db_host: str = ""
    db_port: Number = ""
    socket: str = ""
    db_user: str = ""
    db_password: str = ""
    ssl_ca: str = ""
    ssl_cert: str = ""
    ssl_key: str = ""
    mysql_auth_file: str = ""
    psql_ssl_mode: Annotated[
        Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"], FIXED
    ] = "require"
    psql_ssl_root_cert: str = ""
    psql_ssl_crl: str = ""
    mongo_replica_set_name: str = ""
    mongo_replica_set_address: Annotated[str, FIXED] = ""
    mongo_tls_ca_file: str = ""
    mongo_auth_db: str = ""


class Source(V3):
    name: Name
    connect: Connect = Connect()
    targets: list[Annotated[str, FIXED]] = []
    target_dbs: list[Annotated[str, FIXED]] = []
    target_collections: list[Annotated[str, FIXED]] = []
    excludes: list[Annotated[str, FIXED]] = []
    exclude_dbs: list[Annotated[str, FIXED]] = []
    exclude_collections: list[Annotated[str, FIXED]] = []
    db_extra_keys: Annotated[str, FIXED] = ""
    gzip: Flag | None = None
    is_slave: Flag = False
    save_abs_path: Flag = True
    prepare_xtrabackup: Flag = False


class Retention(V3):
    days: Count = 7
    weeks: Count = 5
    months: Count = 12
    count_instead_of_period: Flag = False


class StorageOptions(V3):
    storage_name: Name
    backup_path: Annotated[str, FIXED]
    enable_rotate: Flag = True
    retention: Retention


class Job(V3):
    job_name: Annotated[str, FIXED, Field(min_length=1), AfterValidator(_job_name)]
    type: Annotated[JobType, FIXED]
    tmp_dir: str = ""
    safety_backup: Flag = False
    deferred_copying: Flag = False
    skip_backup_rotate: Flag = False
    gzip: Flag = False
    dump_cmd: str = ""
    limits: Limits | None = None
    sources: list[Source] = []
    storages_options: list[StorageOptions] = []

    @model_validator(mode="after")
    def _has_command(self) -> Job:
        if self.type == "external" and not self.dump_cmd:
            raise ValueError("needs dump_cmd; it is the program that a job of type external runs")
        return self


class Config(V3):
    """nxs-backup.conf, with the jobs of the files it includes."""

    project_name: Annotated[str, FIXED] = ""
    server_name: str = "localhost"
    notifications: Notifications = Notifications()
    jobs: list[Job] = []
    storage_connects: list[StorageConnect] = []
    include_jobs_configs: list[Annotated[str, FIXED]] = []
    waiting_timeout: Count = 0
    server: Server = Server()
    limits: Limits | None = None
    logfile: str = "stdout"
    loglevel: str = "info"
