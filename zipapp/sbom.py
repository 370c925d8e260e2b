"""What is in an archive, for programs that look for known weaknesses: CycloneDX 1.5, as JSON.

Besides the packages it names what was built into their wheels, as far as these say so themselves.
The format: https://cyclonedx.org/docs/1.5/json/
"""

from __future__ import annotations

import json
import re
import time
import uuid
from typing import Any

_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")
# Classifiers, and what older packages call their licence.
_SPDX = {
    "Apache Software License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def inventory(info: dict[str, Any], packages: list[dict[str, Any]], seconds: int | None) -> bytes:
    """The document for an archive.

    Args:
        info: `version` and `build` of the archive.
        packages: as in `dependencies.Dependencies`.
        seconds: when it was made, since the epoch; without it, no time is named.
    """
    program = {
        "type": "application",
        "bom-ref": "nxs-backup",
        "name": "nxs-backup",
        "version": info["version"],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "properties": [{"name": "nxs-backup:build", "value": info["build"]}],
    }
    metadata: dict[str, Any] = {"component": program}
    if seconds is not None:
        metadata["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    components = [_package(package) for package in packages]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, info['build'])}",
        "version": 1,
        "metadata": metadata,
        "components": components,
        "dependencies": [
            {"ref": "nxs-backup", "dependsOn": [part["bom-ref"] for part in components]},
            *({"ref": part["bom-ref"]} for part in components),
        ],
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _package(package: dict[str, Any]) -> dict[str, Any]:
    name = re.sub(r"[-_.]+", "-", package["name"]).lower()
    purl = f"pkg:pypi/{name}@{package['version']}"
    part = {
        "type": "library",
        "bom-ref": purl,
        "name": package["name"],
        "version": package["version"],
        "licenses": [_licence(package["licence"])],
        "purl": purl,
    }
    contains = {inner["purl"]: inner for inner in package["contains"] if inner["purl"] != purl}
    if contains:
        part["components"] = [
            {"type": "library", "bom-ref": f"{purl}/{inner}", **contains[inner]}
            for inner in sorted(contains)
        ]
    return part


def _licence(text: str) -> dict[str, Any]:
    if text in _SPDX:
        return {"license": {"id": _SPDX[text]}}
    if _EXPRESSION.fullmatch(text):
        return {"expression": text}
    return {"license": {"name": text}}
