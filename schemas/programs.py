"""What a user may say about a program that is started: the same wherever there is one."""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import Field

from schemas.base import Duration, Secret, Text

Environment = Annotated[
    dict[str, Secret],
    Field(
        description="Environment variables added for the program: the place for secrets.",
        examples=[{"PASSWORD": "${LDAP_PASSWORD}"}],
    ),
]

Directory = Annotated[
    Text | None, Field(description="Working directory of the program.", examples=["/srv/app"])
]

User = Annotated[
    Text | None,
    Field(
        description="User to run as, with all groups of that user; needs root.",
        examples=["openldap"],
    ),
]

ExitCodes = Annotated[
    list[Annotated[int, Field(ge=0, le=255)]],
    Field(min_length=1, description="Exit codes that mean success.", examples=[[0, 1]]),
]

Timeout = Annotated[Duration | None, Field(description="End the program after this time.")]


class ProgramSettings(Protocol):
    """A model with all of these keys."""

    @property
    def env(self) -> dict[str, Secret]: ...

    @property
    def cwd(self) -> str | None: ...

    @property
    def user(self) -> str | None: ...

    @property
    def ok_exit_codes(self) -> list[int]: ...

    @property
    def timeout(self) -> float | None: ...
