"""Programs of the user, as the configuration describes them: `command` and `filter`."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.errors import StageError
from pipeline.stage import Needed
from schemas.programs import ProgramSettings
from stages._child import Program


def program_of(
    spec: ProgramSettings, argv: Sequence[str], more: Mapping[str, str] | None = None
) -> Program:
    """What to run.

    Args:
        more: variables added to those of the configuration.
    """
    env = {name: value.get_secret_value() for name, value in spec.env.items()}
    return Program(
        argv,
        env={**env, **(more or {})},
        cwd=spec.cwd,
        user=spec.user,
        timeout=spec.timeout,
        ok_exit_codes=spec.ok_exit_codes,
    )


def strict(program: Program) -> Program:
    """The same, but only 0 is a good exit code."""
    return replace(program, ok_exit_codes=(0,))


def look_up(program: Program, error: type[StageError]) -> str:
    """Where the program is, after a look at all that it needs to start, as a fact for people.

    Raises:
        error: it could not be started.
    """
    if program.cwd is not None and not os.path.isdir(program.cwd):
        raise error(f'the working directory "{program.cwd}" does not exist')
    if program.user is not None:
        _check_user(program.user, error)
    name, path = program.argv[0], _find(program)
    if path is None:
        raise error(f'"{name}" was not found', "install it or give its full path")
    return f'"{name}" is "{path}"'


def needed(program: Program, to_restore: bool = False) -> Needed:
    """The program, for the list of all that a configuration needs."""
    path = _find(program)
    # What an unknown program does with `--version` is unknown too.
    return Needed(
        program.argv[0], [path] if path else [], tells_version=False, to_restore=to_restore
    )


def _find(program: Program) -> str | None:
    name = program.argv[0]
    # A relative path counts from the directory the program starts in.
    wanted = os.path.join(program.cwd or "", name) if "/" in name else name
    return shutil.which(wanted, path=program.env.get("PATH"))


def _check_user(user: str, error: type[StageError]) -> None:
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        raise error(f'there is no user "{user}"') from None
    if os.geteuid() not in (0, uid):
        raise error(f'only root may run a program as "{user}"', "run as root, or remove `user`")
