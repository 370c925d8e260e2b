"""Real WebDAV servers: Apache with mod_dav, in the clear and over TLS, and nginx with dav-ext.

Below the root of Apache, user and password are asked for (basic); other rules hold below these
collections: `digest` asks for a digest whose nonces last a second, `token` for a bearer token,
`small` takes no more than 1 MiB, `read-only` is not ours, `plain` knows no WebDAV, `moved` leads
back to the root, and `login` to another server.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from tests.servers.base import HOST, IS_ROOT, Server, find_program, free_port
from tests.servers.ftp import make_certificate

USER = "nxs"
PASSWORD = "Pa55 word"
TOKEN = "bearer-token-0123456789"
SMALL = 1 << 20
_MODULES = (
    *("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic"),
    *(
        "auth_digest",
        "setenvif",
        "dav",
        "dav_fs",
        "ssl",
        "alias",
        "rewrite",
        "headers",
        "proxy",
        "proxy_http",
    ),
)
_REALM = "nxs"


def _passwd(directory: Path) -> Path:
    """A file for basic authentication."""
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", "-stdin"], input=PASSWORD.encode(), stdout=-1, check=True
    ).stdout.decode()
    path = directory / "htpasswd"
    path.write_text(f"{USER}:{hashed.strip()}\n")
    return path


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else ""


class Apache(Server):
    """Three ports: `port` in the clear, `tls_port`, and `strict_port` for our own certificates.

    Args:
        more: lines for its configuration.
    """

    name = "apache"

    def __init__(self, more: str = "") -> None:
        super().__init__()
        self.more = more
        self.tls_port = 0
        self.strict_port = 0
        self.ca, self.key = make_certificate(self.dir)
        for name in ("var", "plain"):
            (self.dir / name).mkdir()
        _passwd(self.dir)
        digest = hashlib.md5(f"{USER}:{_REALM}:{PASSWORD}".encode()).hexdigest()
        (self.dir / "htdigest").write_text(f"{USER}:{_REALM}:{digest}\n")
        self._make_collections()

    def _make_collections(self) -> None:
        for name in ("digest", "token", "small", "read-only"):
            (self.data / name).mkdir(exist_ok=True)

    def own(self) -> None:
        super().own()
        read_only = self.data / "read-only"
        if read_only.is_dir():
            if IS_ROOT:
                os.chown(read_only, 0, 0)
            read_only.chmod(0o555)

    def url(self, path: str = "") -> str:
        return f"http://{HOST}:{self.port}/{path}"

    def tls_url(self, path: str = "") -> str:
        return f"https://{HOST}:{self.tls_port}/{path}"

    def configure(self) -> None:
        self.tls_port = self.tls_port or free_port()
        self.strict_port = self.strict_port or free_port()
        modules = "".join(
            f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
            for name in _MODULES
        )
        tls = (
            f"SSLEngine on\nSSLCertificateFile {self.ca}\nSSLCertificateKeyFile {self.key}\n"
            "RewriteEngine on\nRewriteOptions Inherit\n"
        )
        (self.dir / "httpd.conf").write_text(
            f"ServerRoot {self.dir}\n"
            "ServerName localhost\n"
            f"Listen {HOST}:{self.port}\n"
            f"Listen {HOST}:{self.tls_port}\n"
            f"Listen {HOST}:{self.strict_port}\n"
            f"PidFile {self.dir}/httpd.pid\n"
            f"DefaultRuntimeDir {self.dir}/var\n"
            f"Mutex file:{self.dir}/var default\n"
            f"{modules}"
            f"ErrorLog {self.dir}/error.log\n"
            "StartServers 1\nServerLimit 2\nThreadsPerChild 32\nMaxRequestWorkers 64\n"
            "Timeout 60\nLimitRequestBody 0\nAllowEncodedSlashes NoDecode\n"
            f"DavLockDB {self.dir}/var/DavLock\n"
            f"DocumentRoot {self.data}\n"
            f"{self._rules()}"
            f"{self.more}\n"
            f"<VirtualHost {HOST}:{self.port}>\nRewriteEngine on\nRewriteOptions Inherit\n"
            "</VirtualHost>\n"
            f"<VirtualHost {HOST}:{self.tls_port}>\n{tls}</VirtualHost>\n"
            f"<VirtualHost {HOST}:{self.strict_port}>\n{tls}"
            f"SSLVerifyClient require\nSSLCACertificateFile {self.ca}\n</VirtualHost>\n"
        )

    def _rules(self) -> str:
        basic = (
            f"AuthType Basic\nAuthName {_REALM}\nAuthUserFile {self.dir}/htpasswd\n"
            "Require valid-user\n"
        )
        digest = (
            f"AuthType Digest\nAuthName {_REALM}\nAuthUserFile {self.dir}/htdigest\n"
            "AuthDigestProvider file\nAuthDigestNonceLifetime 1\nRequire valid-user\n"
        )
        return (
            f"<Directory {self.data}>\nDav On\nDavMinTimeout 0\n{basic}</Directory>\n"
            f"<Location /digest>\n{digest}</Location>\n"
            f"Alias /plain {self.dir}/plain\n"
            f"<Directory {self.dir}/plain>\n{basic}</Directory>\n"
            "<Location /token>\nAuthMerging Off\nRequire all granted\n</Location>\n"
            f"<Location /small>\nLimitRequestBody {SMALL}\n</Location>\n"
            "RewriteEngine on\n"
            f'RewriteCond %{{HTTP:Authorization}} "!=Bearer {TOKEN}"\n'
            "RewriteRule ^/token - [R=401,L]\n"
            "RewriteRule ^/moved/(.*)$ /$1 [R=307,NE,L]\n"
            "RewriteRule ^/login http://elsewhere.invalid/sign-in [R=302,L]\n"
        )

    def log(self) -> str:
        return super().log() + _end_of(self.dir / "error.log")

    def command(self) -> list[str]:
        return [find_program("apache2"), "-DFOREGROUND", "-f", str(self.dir / "httpd.conf")]

    def __enter__(self) -> Apache:
        self.start()
        return self


class Nginx(Server):
    """With dav-ext, which nginx needs for PROPFIND. It takes a body in whole before it begins.

    Args:
        more: lines for its location.
    """

    name = "nginx"

    def __init__(self, more: str = "") -> None:
        super().__init__()
        self.more = more
        (self.dir / "tmp").mkdir()
        _passwd(self.dir)

    def url(self, path: str = "") -> str:
        return f"http://{HOST}:{self.port}/{path}"

    def configure(self) -> None:
        (self.data / ".tmp").mkdir(exist_ok=True)
        others = "".join(
            f"{one}_temp_path {self.dir}/tmp/{one};\n"
            for one in ("proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.dir / "nginx.conf").write_text(
            "load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so;\n"
            f"daemon off;\npid {self.dir}/nginx.pid;\nerror_log {self.dir}/error.log;\n"
            "worker_processes 1;\nevents {}\n"
            "http {\naccess_log off;\nclient_max_body_size 0;\ndav_ext_lock_zone zone=l:1m;\n"
            f"client_body_temp_path {self.data}/.tmp;\n{others}"
            f"server {{\nlisten {HOST}:{self.port};\nroot {self.data};\nlocation / {{\n"
            "dav_methods PUT DELETE MKCOL COPY MOVE;\n"
            "dav_ext_methods PROPFIND OPTIONS LOCK UNLOCK;\n"
            "dav_ext_lock zone=l;\ndav_access user:rw group:r all:r;\n"
            f"auth_basic nxs;\nauth_basic_user_file {self.dir}/htpasswd;\n"
            f"{self.more}\n}}\n}}\n}}\n"
        )

    def log(self) -> str:
        return super().log() + _end_of(self.dir / "error.log")

    def command(self) -> list[str]:
        log = str(self.dir / "error.log")
        return [find_program("nginx"), "-e", log, "-c", str(self.dir / "nginx.conf")]

    def __enter__(self) -> Nginx:
        self.start()
        return self
