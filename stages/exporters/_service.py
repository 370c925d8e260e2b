"""Calls a monitoring system over HTTP, with the retries of a notifier and a short deadline."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from schemas.base import Secret
from schemas.metrics import Service
from stages._tls import ssl_context
from stages.notifiers._http import Http


@dataclass(frozen=True)
class _Settings:
    timeout: float
    ca: None = None


def client(service: Service, address: Secret) -> Http:
    """What delivers to a service, and reads what it answers."""

    def trust() -> ssl.SSLContext:
        host = urlsplit(address.get_secret_value()).hostname or ""
        # An http address is never encrypted, and needs no store of certificates.
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        encrypted = address.get_secret_value().startswith("https:")
        return (ssl_context(service.tls, host) or bare) if encrypted else bare

    return Http(_Settings(service.timeout), reads=True, trust=trust)
