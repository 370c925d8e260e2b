"""Reads traces as a collector of OpenTelemetry does: strictly, by the published protocol."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def read_trace(document: dict[str, Any]) -> ExportTraceServiceRequest:
    """The request; an unknown field, a wrong type or a malformed id is an error.

    OTLP has one deviation from the JSON of Protocol Buffers: ids are hexadecimal, not base64.
    """
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for key, size in (("traceId", 16), ("spanId", 8), ("parentSpanId", 8)):
                    if key in span:
                        data = bytes.fromhex(span[key])
                        assert len(data) == size
                        assert any(data)
                        span[key] = b64encode(data).decode()
    return json_format.ParseDict(document, ExportTraceServiceRequest())


def spans_of(request: ExportTraceServiceRequest) -> list[Any]:
    return [
        span
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def attributes_of(owner: Any) -> dict[str, Any]:
    """Plain values of the attributes of a span or resource."""
    found = {}
    for pair in owner.attributes:
        kind = pair.value.WhichOneof("value")
        assert pair.key not in found
        found[pair.key] = getattr(pair.value, kind)
    return found
