"""A real S3 server, versitygw, over a directory; built from source by `install-versitygw`."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import botocore.session  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]

from tests.servers.base import HOST, Server, ServerFailed, one_at_a_time

ACCESS_KEY = "AKIANXSROOT"
SECRET_KEY = "Pa55 word of root"
USER_KEY = "AKIANXSUSER"
USER_SECRET = "Pa55 word of a user"
"""A second user, who may do what the policy of a bucket allows and nothing else."""
BUCKET = "backups"
REGION = "us-east-1"

_HERE = Path(__file__).parent
_PROGRAM = _HERE.parent.parent / "build" / "versitygw"
REASON = "versitygw has to be built, which takes Go 1.21 or newer"


def can_run() -> bool:
    """Whether the server is here or can be built."""
    return _PROGRAM.exists() or shutil.which("go") is not None


class Versitygw(Server):
    """versitygw with one bucket.

    Args:
        certificate: PEM file with certificate and key; makes it an HTTPS server.
        versions: whether it can keep versions, which object locks need.
    """

    name = "s3"

    def __init__(self, certificate: Path | None = None, versions: bool = False) -> None:
        super().__init__()
        self.certificate = self._copy(certificate) if certificate else None
        self.versions = versions
        (self.dir / "iam").mkdir()
        self._write_users()

    def _copy(self, certificate: Path) -> Path:
        return Path(shutil.copy(certificate, self.dir / "tls.pem"))

    def _write_users(self) -> None:
        user = {"access": USER_KEY, "secret": USER_SECRET, "role": "user"}
        users = {"accessAccounts": {USER_KEY: {**user, "userID": 0, "groupID": 0, "projectID": 0}}}
        (self.dir / "iam" / "users.json").write_text(json.dumps(users))

    def configure(self) -> None:
        with one_at_a_time("versitygw"):
            built = subprocess.run([_HERE / "install-versitygw"], capture_output=True, check=False)
        if built.returncode:
            raise ServerFailed(built.stderr.decode(errors="replace")[-2000:])

    def command(self) -> list[str]:
        options = ["--port", f"{HOST}:{self.port}", "--iam-dir", str(self.dir / "iam")]
        if self.certificate:
            options += ["--cert", str(self.certificate), "--key", str(self.certificate)]
        backend = ["posix", str(self.data)]
        if self.versions:
            (self.dir / "versions").mkdir(exist_ok=True)
            self.own()
            backend[1:1] = ["--versioning-dir", str(self.dir / "versions")]
        return [str(_PROGRAM.resolve()), "--keep-alive", "--quiet", *options, *backend]

    def environment(self) -> dict[str, str]:
        return {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}

    def is_ready(self) -> bool:
        connection = HTTPConnection(HOST, self.port, timeout=5)
        if self.certificate:
            context = ssl._create_unverified_context()
            connection = HTTPSConnection(HOST, self.port, timeout=5, context=context)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 403
        finally:
            connection.close()

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.certificate else 'http'}://{HOST}:{self.port}"

    def client(self) -> Any:
        """A client of root, which looks at the server beside the storage under test."""
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            verify=str(self.certificate) if self.certificate else None,
            config=Config(s3={"addressing_style": "path"}),
        )

    def make_bucket(self, bucket: str = BUCKET, **options: Any) -> None:
        self.client().create_bucket(Bucket=bucket, **options)

    def allow(self, *actions: str, bucket: str = BUCKET) -> None:
        """Let the second user do this in a bucket, and nothing else."""
        resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        statements = [
            {
                "Effect": "Allow",
                "Principal": [USER_KEY],
                "Action": [f"s3:{action}"],
                # Some actions are about the bucket, the others about its objects.
                "Resource": resources[not action.startswith("ListBucket") :][:1],
            }
            for action in actions
        ]
        policy = {"Version": "2012-10-17", "Statement": statements}
        self.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))

    def __enter__(self) -> Versitygw:
        self.start()
        self.make_bucket()
        return self


def scratch() -> Path:
    """A directory of the client's own files, to be removed by the caller."""
    return Path(mkdtemp(prefix="nxs-s3-client-"))
