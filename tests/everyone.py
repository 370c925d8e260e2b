"""One notifier of each kind, all of which call servers on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

NAMES = (
    "webhook",
    "slack",
    "slack-bot",
    "mattermost",
    "mattermost-bot",
    "teams",
    "telegram",
    "discord",
    "healthchecks",
    "email",
    "apprise",
)


def notifiers(
    web: int, smtp: int, secret: Callable[[str], str] = lambda name: f"secret-of-{name}"
) -> dict[str, dict[str, Any]]:
    """Entries of `notifiers`, as a user writes them.

    Args:
        web: port of an HTTP server.
        smtp: port of an SMTP server.
        secret: the token, password or secret path of each, by its name.
    """
    url = f"http://127.0.0.1:{web}"
    hidden = {name: secret(name) for name in NAMES}
    channel = {"channel": "C0123456789"}
    mail = {"host": "127.0.0.1", "port": smtp, "security": "off", "user": "backup"}
    return {
        "webhook": {
            "type": "webhook",
            "url": f"{url}/webhook/{hidden['webhook']}?key={hidden['webhook']}",
            "headers": {"X-Token": hidden["webhook"]},
        },
        "slack": {"type": "slack", "url": f"{url}/slack/{hidden['slack']}"},
        "slack-bot": {
            "type": "slack",
            "api": f"{url}/slack-api",
            "token": hidden["slack-bot"],
            **channel,
        },
        "mattermost": {"type": "mattermost", "url": f"{url}/hooks/{hidden['mattermost']}"},
        "mattermost-bot": {
            "type": "mattermost",
            "url": f"{url}/mattermost",
            "token": hidden["mattermost-bot"],
            **channel,
        },
        "teams": {"type": "teams", "url": f"{url}/teams/{hidden['teams']}"},
        "telegram": {
            "type": "telegram",
            "api": f"{url}/telegram",
            "token": f"12345:{hidden['telegram']}",
            "chat": "-1001234567890",
        },
        "discord": {"type": "discord", "url": f"{url}/discord/{hidden['discord']}"},
        "healthchecks": {"type": "healthchecks", "url": f"{url}/ping/{hidden['healthchecks']}"},
        "email": {
            "type": "email",
            "sender": "backup@example.net",
            "to": ["ops@example.net"],
            **mail,
            "password": hidden["email"],
        },
        "apprise": {
            "type": "apprise",
            "urls": [f"json://127.0.0.1:{web}/apprise/{hidden['apprise']}"],
        },
    }


def configuration(
    told: Mapping[str, Mapping[str, Any]], source: Mapping[str, Any], path: str, **backup: Any
) -> str:
    """A file with one backup, `db`, to a folder, that tells everyone."""
    document = {
        "name": "shop",
        "host": "web-1",
        "storages": {"disk": {"type": "local", "path": path}},
        "notifiers": told,
        "backups": {
            "db": {
                "source": source,
                "fan_out": [{"storage": "disk"}],
                "notify": list(told),
                **backup,
            }
        },
    }
    return json.dumps(document, indent=2)
