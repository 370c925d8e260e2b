"""TLS for clients, from the settings that a user may write."""

from __future__ import annotations

import ipaddress
import ssl

from pipeline.errors import ConfigError
from schemas.tls import Tls, TlsMode


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host.rstrip(".").lower() in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def tls_mode(tls: Tls | None, host: str) -> TlsMode:
    """The mode that is in force for a host."""
    tls = tls or Tls(mode=None)
    if tls.mode is not None:
        return tls.mode
    return "prefer" if is_loopback(host) and tls.ca is None else "verify"


def ssl_context(tls: Tls | None, host: str) -> ssl.SSLContext | None:
    """What to wrap a connection to `host` with; None when the mode is `off`.

    Whether a server without TLS is then talked to in the clear (`prefer`) or given up is up to the
    caller, see `tls_mode`.

    Raises:
        ConfigError: a file cannot be read, or holds something else.
    """
    mode = tls_mode(tls, host)
    if mode == "off":
        return None
    tls = tls or Tls(mode=None)
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:
        raise _unusable("ca file", tls.ca, error) from None
    if mode != "verify":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert is not None:
        try:
            # An encrypted key must not make OpenSSL ask on the terminal.
            context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
        except OSError as error:
            raise _unusable("certificate or key file", tls.key or tls.cert, error) from None
    return context


def _unusable(what: str, path: str | None, error: OSError) -> ConfigError:
    if isinstance(error, ssl.SSLError):
        return ConfigError(f'{what} "{path}" cannot be used', "it must be PEM, and not encrypted")
    return ConfigError(f'{what} "{path}" cannot be read: {(error.strerror or "").lower()}')
