"""Every key of v3 and what becomes of it: the tables of docs/migration.md, which a test compares.

Our keys are ways through the models: `storages.*.host`, `backups.*.source.host`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """One key of v3.

    Attributes:
        old: as v3 spells it, with the blocks it is in.
        new: ours; empty when there is none.
        note: what means something else, or why there is none.
    """

    old: str
    new: tuple[str, ...]
    note: str = ""


def _key(old: str, new: str, note: str = "") -> Key:
    return Key(old, tuple(new.split()), note)


ROOT = (
    _key("project_name", "name", "letters, digits, `_`, `.` and `-`"),
    _key("server_name", "host", "`localhost` is left out: the name of the machine counts"),
    _key("jobs", "backups", "each source of a job becomes a backup"),
    _key("include_jobs_configs", "", "written into the one file; `include` can split it again"),
    _key("storage_connects", "storages", "each with its path, so one for each `backup_path`"),
    _key("notifications", "notifiers", "every backup names them under `notify`"),
    _key("waiting_timeout", "", "each backup has a lock of its own; a run that meets it exits 11"),
    _key("server.bind", "", "v3 served metrics from a file with a second process"),
    _key("server.metrics.enabled", "", "likewise"),
    _key("server.metrics.metrics_file_path", "", "likewise"),
    _key("limits.disk_rate", "backups.*.fan_out[].stages", "a `throttle` on local storages"),
    _key("limits.net_rate", "backups.*.fan_out[].stages", "a `throttle` on all others"),
    _key("limits.cpu_max_count", "", "use `nice`, or the limits of systemd"),
    _key("logfile", "", "logs go to stderr; `log.file` adds a file"),
    _key("loglevel", "", "`-v`, `-q`, `-qq`; `log.level` for the file"),
)
NOTIFICATIONS = (
    _key("mail.enabled", "", "what is turned off is left out"),
    _key("mail.mail_from", "notifiers.*.sender"),
    _key("mail.smtp_server", "notifiers.*.host notifiers.*.sendmail", "empty: sendmail"),
    _key("mail.smtp_port", "notifiers.*.port notifiers.*.security", "465: TLS, else STARTTLS"),
    _key("mail.smtp_user", "notifiers.*.user"),
    _key("mail.smtp_password", "notifiers.*.password"),
    _key("mail.recipients", "notifiers.*.to"),
    _key("mail.message_level", "notifiers.*.level", "one message a run, not one a line of the log"),
    _key("webhooks[].enabled", "", "what is turned off is left out"),
    _key("webhooks[].webhook_url", "notifiers.*.url"),
    _key("webhooks[].payload_message_key", "notifiers.*.payload", "with `{text}`"),
    _key("webhooks[].extra_payload", "notifiers.*.payload", "braces are doubled"),
    _key("webhooks[].extra_headers", "notifiers.*.headers"),
    _key("webhooks[].insecure_tls", "", "certificates are checked; name an authority as `ca`"),
    _key("webhooks[].message_level", "notifiers.*.level"),
)
STORAGES = (
    _key("name", "storages", "with the end of the path behind it, when there are several"),
    _key("rate_limit", "backups.*.fan_out[].stages", "v3 read it, and did not keep to it"),
    _key("s3_params.bucket_name", "storages.*.bucket"),
    _key("s3_params.access_key_id", "storages.*.access_key"),
    _key("s3_params.secret_access_key", "storages.*.secret_key"),
    _key("s3_params.endpoint", "storages.*.endpoint storages.*.addressing", "with the scheme"),
    _key("s3_params.region", "storages.*.region"),
    _key("s3_params.batch_deletion", "", "whether the service can is found out"),
    _key("s3_params.secure", "storages.*.endpoint", "`https://` or `http://`"),
    _key("scp_params.user", "storages.*.user", "`scp_params` is SFTP, like `sftp_params`"),
    _key("scp_params.host", "storages.*.host", "the host key is checked"),
    _key("scp_params.port", "storages.*.port"),
    _key("scp_params.password", "storages.*.password"),
    _key("scp_params.key_file", "storages.*.key_file"),
    _key("scp_params.connection_timeout", "storages.*.connect_timeout"),
    _key("sftp_params.user", "storages.*.user"),
    _key("sftp_params.host", "storages.*.host", "the host key is checked"),
    _key("sftp_params.port", "storages.*.port"),
    _key("sftp_params.password", "storages.*.password"),
    _key("sftp_params.key_file", "storages.*.key_file"),
    _key("sftp_params.connection_timeout", "storages.*.connect_timeout"),
    _key("ftp_params.host", "storages.*.host", "TLS is required, unless you turn it off"),
    _key("ftp_params.user", "storages.*.user"),
    _key("ftp_params.password", "storages.*.password"),
    _key("ftp_params.port", "storages.*.port"),
    _key("ftp_params.connect_count", "", "v3 did not use it"),
    _key("ftp_params.connection_timeout", "storages.*.connect_timeout"),
    _key("nfs_params.host", "storages.*.host"),
    _key("nfs_params.target", "storages.*.export"),
    _key("nfs_params.uid", "storages.*.uid"),
    _key("nfs_params.gid", "storages.*.gid"),
    _key("nfs_params.port", "", "v3's samples have it, and v3 refuses it"),
    _key("smb_params.host", "storages.*.host"),
    _key("smb_params.port", "storages.*.port"),
    _key("smb_params.user", "storages.*.user"),
    _key("smb_params.password", "storages.*.password"),
    _key("smb_params.domain", "storages.*.user", "`DOMAIN\\user`"),
    _key("smb_params.share", "storages.*.share"),
    _key("smb_params.connection_timeout", "storages.*.connect_timeout"),
    _key("webdav_params.url", "storages.*.url", "with the path"),
    _key("webdav_params.username", "storages.*.user"),
    _key("webdav_params.password", "storages.*.password"),
    _key("webdav_params.oauth_token", "storages.*.token", 'sent as "Bearer", not as "OAuth"'),
    _key("webdav_params.connection_timeout", "storages.*.connect_timeout", "of connecting alone"),
)
JOBS = (
    _key("job_name", "backups", "with the name of the source behind it, when there are several"),
    _key("type", "backups.*.source.type"),
    _key("tmp_dir", "", "there are no temporary files"),
    _key("safety_backup", "", "old copies go after a new one is complete, always"),
    _key("deferred_copying", "", "all storages are written at once"),
    _key("gzip", "backups.*.stages", "a stage `gzip`"),
    _key("limits.disk_rate", "backups.*.fan_out[].stages", "a `throttle` on local storages"),
    _key("limits.net_rate", "backups.*.fan_out[].stages", "a `throttle` on all others"),
    _key("limits.cpu_max_count", "", "v3 did not use it here"),
    _key("dump_cmd", "backups.*.source.command", "`type: command`, `prints: path`"),
    _key("skip_backup_rotate", "", "v3 then delivered nothing either"),
    _key("sources", "backups"),
    _key("storages_options[].storage_name", "backups.*.fan_out[].storage"),
    _key("storages_options[].backup_path", "storages.*.path", "NFS, SMB, S3: below the share"),
    _key("storages_options[].enable_rotate", "backups.*.fan_out[].rotate", "off: left out"),
    _key(
        "storages_options[].retention.days",
        "backups.*.fan_out[].rotate.within",
        "of `inc_files` only `months` count",
    ),
    _key("storages_options[].retention.weeks", "backups.*.fan_out[].rotate.weekly"),
    _key("storages_options[].retention.months", "backups.*.fan_out[].rotate.monthly"),
    _key(
        "storages_options[].retention.count_instead_of_period",
        "backups.*.fan_out[].rotate.last",
        "`days` are then a number of copies",
    ),
)
SOURCES = (
    _key("name", "backups.*.fan_out[].legacy_directory", "where v3 put its copies"),
    _key("targets", "backups.*.source.paths"),
    _key("target_dbs", "backups.*.source.databases", "`all` is without the server's own"),
    _key("target_collections", "backups.*.source.collections"),
    _key(
        "excludes",
        "backups.*.source.exclude backups.*.source.exclude_tables",
        "files: patterns like those of gitignore",
    ),
    _key("exclude_dbs", "backups.*.source.exclude"),
    _key("exclude_collections", "backups.*.source.exclude_collections"),
    _key("db_extra_keys", "backups.*.source.extra_args", "as far as there are no keys for them"),
    _key("gzip", "backups.*.stages"),
    _key("is_slave", "backups.*.source.stop_slave"),
    _key("save_abs_path", "backups.*.source.names", "`false` is `relative`"),
    _key("prepare_xtrabackup", "", "it is prepared when it is restored"),
    _key("connect.db_host", "backups.*.source.host", "certificates are checked"),
    _key("connect.db_port", "backups.*.source.port"),
    _key("connect.socket", "backups.*.source.socket", "PostgreSQL: `host` is its folder"),
    _key("connect.db_user", "backups.*.source.user", "PostgreSQL: `user@db` sets `database`"),
    _key("connect.db_password", "backups.*.source.password"),
    _key("connect.ssl_ca", "backups.*.source.tls.ca"),
    _key("connect.ssl_cert", "backups.*.source.tls.cert"),
    _key("connect.ssl_key", "backups.*.source.tls.key"),
    _key("connect.mysql_auth_file", "backups.*.source.option_file", "its group `client` alone"),
    _key("connect.psql_ssl_mode", "backups.*.source.tls.mode"),
    _key("connect.psql_ssl_root_cert", "backups.*.source.tls.ca"),
    _key("connect.psql_ssl_crl", "", "lists of revoked certificates are not read"),
    _key("connect.mongo_replica_set_name", "backups.*.source.replica_set"),
    _key("connect.mongo_replica_set_address", "backups.*.source.host", "the first of them"),
    _key("connect.mongo_tls_CA_file", "backups.*.source.tls.ca"),
    _key("connect.mongo_auth_db", "backups.*.source.auth_source"),
)
TABLES = {
    "The file as a whole": ROOT,
    "notifications": NOTIFICATIONS,
    "storage_connects[]": STORAGES,
    "jobs[]": JOBS,
    "jobs[].sources[]": SOURCES,
}
TYPES = {
    "desc_files": "files",
    "inc_files": "files",
    "mysql": "mysql",
    "mysql_xtrabackup": "mysql_physical",
    "mariadb_backup": "mysql_physical",
    "postgresql": "postgres",
    "postgresql_basebackup": "postgres_physical",
    "mongodb": "mongodb",
    "redis": "redis",
    "external": "command",
}
"""Type of our source for each type of job."""


def table(keys: tuple[Key, ...]) -> str:
    """As Markdown."""
    lines = ["| v3 | here | what changes |", "|---|---|---|"]
    for key in keys:
        new = ", ".join(f"`{each}`" for each in key.new) or "-"
        lines.append(f"| `{key.old}` | {new} | {key.note} |")
    return "\n".join(lines)
