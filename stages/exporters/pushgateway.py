"""Pushes metrics to a Pushgateway of Prometheus.

API: https://github.com/prometheus/pushgateway#api. What is pushed under the same grouping key
replaces what was there: all of it with PUT, metrics of the same name with POST. A run that failed
does not tell when the last success was, so POST leaves that as it is. Samples of a backup that
did not run are in other groups, and stay.
"""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from pipeline.metrics import Group, groups, measure, render
from pipeline.report import RunReport
from pipeline.stage import Exporter
from schemas.metrics import Pushgateway as PushgatewaySpec
from schemas.pipeline import Pipeline
from stages.exporters._service import client

_FORMAT = "text/plain; version=0.0.4; charset=utf-8"


class Pushgateway(Exporter):
    """One request for the run, one for each backup that ran, and one for each of its storages."""

    def __init__(self, pipeline: Pipeline) -> None:
        assert pipeline.metrics is not None
        assert pipeline.metrics.pushgateway is not None
        self._spec = pipeline.metrics.pushgateway
        self._grouping = (
            ("job", self._spec.job),
            ("instance", self._spec.instance or pipeline.host),
            ("project", pipeline.name),
            *self._spec.labels.items(),
        )
        self._http = client(self._spec, self._spec.url)

    async def export(self, report: RunReport) -> None:
        for group in groups(measure(report)):
            await self._push(group)

    async def probe(self) -> Sequence[str]:
        await self._http.send(self._address, method="GET", tail="/-/ready", headers=self._login)
        return ["the gateway is ready"]

    async def _push(self, group: Group) -> None:
        await self._http.send(
            self._address,
            render(group.samples).encode("utf-8"),
            method="PUT" if group.complete else "POST",
            tail=f"/metrics/{path((*self._grouping, *group.labels))}",
            headers={"content-type": _FORMAT, **self._login},
        )

    @property
    def _address(self) -> str:
        return self._spec.url.get_secret_value()

    @property
    def _login(self) -> dict[str, str]:
        return authorization(self._spec)


def path(grouping: Iterable[tuple[str, str]]) -> str:
    """A grouping key as the parts of a path.

    A value that is empty or has a slash in it is given as base64, as the API asks for.
    """
    parts = []
    for name, value in grouping:
        if not value or "/" in value:
            # Without padding an empty value would be an empty part of the path.
            encoded = urlsafe_b64encode(value.encode()).decode() or "="
            parts.append(f"{name}@base64/{encoded}")
        else:
            parts.append(f"{name}/{quote(value, safe='')}")
    return "/".join(parts)


def authorization(spec: PushgatewaySpec) -> dict[str, str]:
    """The header that says who we are; none when nothing is set."""
    if spec.token is not None:
        return {"authorization": f"Bearer {spec.token.get_secret_value()}"}
    if spec.user is not None and spec.password is not None:
        pair = f"{spec.user}:{spec.password.get_secret_value()}"
        return {"authorization": f"Basic {b64encode(pair.encode()).decode()}"}
    return {}


COMPONENT = Pushgateway
