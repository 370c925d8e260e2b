"""The real programs of Prometheus that our metrics are for."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import bcrypt
from prometheus_client.parser import text_string_to_metric_families

from tests.servers.base import HOST, Server, find_program
from tests.servers.ftp import make_certificate

USER = "nxs"
PASSWORD = "Pa55 word"

Series = tuple[str, frozenset[tuple[str, str]]]


class Pushgateway(Server):
    """Keeps what is pushed until it is read.

    Args:
        tls: whether it speaks https, with the certificate `ca`.
        login: whether it asks for a password.
    """

    name = "pushgateway"

    def __init__(self, tls: bool = False, login: bool = False) -> None:
        super().__init__()
        self.login = login
        self.ca: Path | None = None
        if tls:
            self.ca, self._key = make_certificate(self.dir)

    @property
    def url(self) -> str:
        return f"http{'s' if self.ca else ''}://{HOST}:{self.port}"

    def configure(self) -> None:
        lines = []
        if self.ca:
            lines += ["tls_server_config:", f"  cert_file: {self.ca}", f"  key_file: {self._key}"]
        if self.login:
            hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
            lines += ["basic_auth_users:", f"  {USER}: '{hashed}'"]
        (self.dir / "web.yml").write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        return [
            find_program("prometheus-pushgateway"),
            f"--web.listen-address={HOST}:{self.port}",
            f"--web.config.file={self.dir / 'web.yml'}",
        ]

    def samples(self) -> dict[Series, float]:
        """What a scrape gets of ours, and `push_time_seconds`."""
        return scrape(f"{self.url}/metrics", ("nxs_backup_", "push_"))

    def __enter__(self) -> Pushgateway:
        self.start()
        return self


class NodeExporter(Server):
    """Reads the metrics files of the directory `files`, as a user of its own."""

    name = "node-exporter"

    def __init__(self) -> None:
        super().__init__()
        self.files = self.dir / "files"
        self.files.mkdir()

    def configure(self) -> None:
        """There is nothing to configure."""

    def command(self) -> list[str]:
        return [
            find_program("prometheus-node-exporter"),
            f"--web.listen-address={HOST}:{self.port}",
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={self.files}",
        ]

    def samples(self) -> dict[Series, float]:
        """What a scrape gets of ours, and what it says of the files."""
        return scrape(f"http://{HOST}:{self.port}/metrics", ("nxs_backup_", "node_textfile_"))

    def __enter__(self) -> NodeExporter:
        self.start()
        return self


def scrape(url: str, prefixes: tuple[str, ...]) -> dict[Series, float]:
    """Read metrics as Prometheus does; only those whose name begins so."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(prefixes)
    }
