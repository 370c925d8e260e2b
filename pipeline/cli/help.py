"""What `--help` says about each command, beyond its one line; a test parses the examples."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Help:
    """More about a command."""

    text: str
    examples: tuple[str, ...]
    """Whole command lines."""

    def description(self, summary: str) -> str:
        """What stands above the options, with the line of the command as its first."""
        first = summary[0].upper() + summary[1:] + "."
        paragraphs = [first, *self.text.split("\n\n")]
        return "\n\n".join(textwrap.fill(" ".join(each.split()), 79) for each in paragraphs)

    def epilog(self) -> str:
        """What stands below the options."""
        title = "example:" if len(self.examples) == 1 else "examples:"
        return "\n".join([title, *(f"  {example}" for example in self.examples)])


HELP: dict[str, Help] = {
    "run": Help(
        """Reads each source once, sends it to all of its storages, and removes what rotation does
        not keep. Nothing has its final name before everything of it was written.

        Ends with 0 when all is well, 1 when a backup failed, 3 when an optional storage failed or
        a part of a source could not be read, and 11 when another run of a backup is under way.""",
        (
            "nxs-backup run pipeline.yaml",
            "nxs-backup run pipeline.yaml --backup crm-db --dry-run",
            "nxs-backup run pipeline.yaml --parallel 2 --json > report.json",
        ),
    ),
    "check": Help(
        """Names every problem of the file at once, each with its line and what to do. With
        --connect, also logs in everywhere, writes, lists and removes a small object on each
        storage, and looks for the programs and privileges that a run will need. Ends with 78 when
        the file is wrong, with 1 when a run would fail.""",
        (
            "nxs-backup check pipeline.yaml",
            "nxs-backup check pipeline.yaml --connect --notify",
        ),
    ),
    "graph": Help(
        """Shows the way of the data from the source to each storage, with the most that may wait
        on every edge. Mermaid is drawn by GitHub and GitLab, dot by Graphviz.""",
        (
            "nxs-backup graph pipeline.yaml --backup crm-db",
            "nxs-backup graph pipeline.yaml --format dot | dot -Tsvg > pipeline.svg",
        ),
    ),
    "plan": Help(
        """Nothing is read from a source, and nothing is changed; the storages are asked for what
        they hold, so that it can be told what rotation would remove.""",
        (
            "nxs-backup plan pipeline.yaml --backup crm-db",
            "nxs-backup plan pipeline.yaml --simulate 90d",
        ),
    ),
    "list": Help(
        """Goes by the manifests on the storages: what has none is no backup.""",
        (
            "nxs-backup list pipeline.yaml",
            "nxs-backup list pipeline.yaml --backup crm-db --storage nas --json",
        ),
    ),
    "verify": Help(
        """Reads objects to their end, compares the digest, decrypts, decompresses, and checks what
        the format of the source lets one check. The newest backup is taken unless --at names a
        time (the newest up to then) or all. The key for age comes from the stage's identity_file
        unless it is given here.""",
        (
            "nxs-backup verify pipeline.yaml",
            "nxs-backup verify pipeline.yaml --at all --identity key.txt",
            "nxs-backup verify pipeline.yaml --backup crm-db --digest-only",
        ),
    ),
    "restore": Help(
        """Streams from the storage through decryption and decompression to the target; nothing is
        stored in between. What exists stays, unless --overwrite is given. An address of a server,
        such as mysql://user@host/database, loads a dump there; its password comes from the
        environment or the configuration.""",
        (
            "nxs-backup restore pipeline.yaml --backup files --to /tmp/back",
            "nxs-backup restore pipeline.yaml --backup crm-db --at 2026-11-23T03:15 --stdout",
            "nxs-backup restore pipeline.yaml --backup files --storage nas --identity key.txt "
            "--to /tmp/back",
        ),
    ),
    "prune": Help(
        """Removes what the rules of rotate do not keep. With --dry-run it gives the reason for each
        backup that stays. At least the newest complete backup stays, and only what this host has
        written is ever removed.""",
        (
            "nxs-backup prune pipeline.yaml --dry-run",
            "nxs-backup prune pipeline.yaml --backup crm-db",
        ),
    ),
    "keygen": Help(
        """Writes the private key to FILE, and prints the public one, which belongs into the
        recipients of the stage. Whoever has lost the private key has lost the backups: keep a
        copy away from this machine.""",
        ("nxs-backup keygen key.txt > recipients.txt",),
    ),
    "version": Help(
        """With --json, also of Python and of everything that is inside the archive.""",
        ("nxs-backup version --json",),
    ),
    "schema": Help(
        """Editors with a YAML language server complete and check a file that begins with the line
        `# yaml-language-server: $schema=./pipeline.schema.json`.""",
        (
            "nxs-backup schema > pipeline.schema.json",
            "nxs-backup schema pipeline.yaml > pipeline.schema.json",
        ),
    ),
    "init": Help(
        """Everything that can be set stands in the file with an explanation; what is optional is
        commented out. Secrets are left to variables. The file can be read by its owner alone.""",
        (
            "nxs-backup init",
            "nxs-backup init files mysql s3 sftp age slack --output pipeline.yaml",
            "nxs-backup init postgres local --brief",
        ),
    ),
    "completion": Help(
        """Add the line of your shell to the file it reads when it starts. Names of backups and
        storages are completed from the FILE that stands on the command line.""",
        (
            'eval "$(nxs-backup completion bash)"',
            'eval "$(nxs-backup completion zsh)"',
            "nxs-backup completion fish | source",
        ),
    ),
    "convert": Help(
        """Reads what nxs-backup v3 reads, with its includes, and changes nothing there. The report
        says what has another meaning now, and what has to be decided by hand.""",
        ("nxs-backup convert /etc/nxs-backup/nxs-backup.conf --output pipeline.yaml",),
    ),
}
