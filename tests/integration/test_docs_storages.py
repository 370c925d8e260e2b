"""What the guide says about the rights of a key for S3: they are enough, and no more is needed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.main import main
from tests.markdown import DOCS, blocks, prose
from tests.servers.s3 import (
    BUCKET,
    REASON,
    USER_KEY,
    USER_SECRET,
    Versitygw,
    can_run,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not can_run(), reason=REASON),
]
PAGE = DOCS / "storages.md"


@pytest.fixture
def server() -> Iterator[Versitygw]:
    with Versitygw() as started:
        yield started


def configured(server: Versitygw, folder: Path, rotates: bool) -> str:
    storage = {"type": "s3", "bucket": BUCKET, "endpoint": server.endpoint}
    login = {"access_key": USER_KEY, "secret_key": USER_SECRET}
    rotate = {"rotate": {"last": 1}} if rotates else {}
    document = {
        "name": "guide",
        "storages": {"offsite": {**storage, **login}},
        "backups": {
            "kept": {
                "source": {"type": "command", "command": ["echo", "x"]},
                "fan_out": [{"storage": "offsite", **rotate}],
            }
        },
    }
    path = folder / "pipeline.yaml"
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    return str(path)


def test_a_key_that_rotates(server: Versitygw, tmp_path: Path) -> None:
    (shown,) = blocks(PAGE, "json")
    policy = json.loads(shown.text.replace("shop-backups", BUCKET))
    for statement in policy["Statement"]:
        # A policy of a bucket names who, one of a user does not; this service wants a list.
        statement["Principal"] = [USER_KEY]
        statement["Resource"] = [statement["Resource"]]
    server.client().put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
    config = configured(server, tmp_path, rotates=True)
    assert main(["check", config, "--connect"]) == 0
    for _ in range(2):
        assert main(["run", config, "-qq"]) == 0
    assert main(["verify", config]) == 0
    assert main(["prune", config]) == 0


def test_a_key_that_only_writes(server: Versitygw, tmp_path: Path) -> None:
    (told,) = re.findall(r"a key that may only write is enough.*?\n\n", prose(PAGE), re.DOTALL)
    server.allow(*re.findall(r"`s3:(\w+)`", told.partition("`kms`")[0]))
    config = configured(server, tmp_path, rotates=False)
    assert main(["check", config, "--connect"]) == 0
    assert main(["run", config, "-qq"]) == 0
    assert main(["prune", config]) == 0  # Without `rotate` it only clears what is unfinished.
    assert main(["list", config]) == 1
    assert len(server.client().list_objects_v2(Bucket=BUCKET)["Contents"]) == 3
