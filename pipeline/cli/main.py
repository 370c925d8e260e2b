"""Arguments in, exit code out.

Exit codes: 0 all well; 1 a backup failed; 2 usage; 3 partial; 11 another run holds the lock; 78 the
configuration is wrong; 130 interrupted. Each command lives in a module of its own and is imported
when it is asked for, so that `version` and `check` answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from pipeline.cli.help import HELP
from pipeline.errors import ConfigError, Interrupted, LockHeld, NxsError

EXIT_FAILED, EXIT_LOCKED, EXIT_CONFIG, EXIT_INTERRUPTED = 1, 11, 78, 130


def _discard(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """The program: runs one command and returns its exit code."""
    code = _run_command(arguments)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _discard(stream)  # Python would try again at exit, and turn our exit code into 120
    return code


def _run_command(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        command = importlib.import_module(f"pipeline.cli.{options.module}")
        code: int = command.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _discard(sys.stdout)
        return EXIT_FAILED
    except NxsError as error:
        return _fail(error, options)
    except Exception as error:
        if options.verbose:
            raise
        print(
            f"error: internal: {type(error).__name__}; run again with -v for the details",
            file=sys.stderr,
        )
        return EXIT_FAILED


def _fail(error: NxsError, options: argparse.Namespace) -> int:
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"    hint: {error.hint}", file=sys.stderr)
    _annotate(error, options)
    codes = {LockHeld: EXIT_LOCKED, ConfigError: EXIT_CONFIG, Interrupted: EXIT_INTERRUPTED}
    return codes.get(type(error), EXIT_FAILED)


def _annotate(error: NxsError, options: argparse.Namespace) -> None:
    """Show it in continuous integration, unless it only counts problems that have been shown."""
    from pipeline.cli.ci import find

    service = None if isinstance(error, ConfigError) else find(options, os.environ)
    if service and (annotation := service.annotation("error", "nxs-backup", str(error))):
        print(annotation, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nxs-backup",
        description="Backups as a graph of stages: one read, many storages, no staging.",
        epilog="COMMAND --help tells more, with examples. Exit codes: 0 all well, 1 failed, "
        "2 usage, 3 partial, 11 locked, 78 wrong configuration, 130 interrupted.",
        allow_abbrev=False,
        parents=[_global_options()],
    )
    parser.set_defaults(log_format=None, verbose=0, quiet=0, no_color=False, env_file=None, ci=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _run,
        _check,
        _graph,
        _plan,
        _list,
        _verify,
        _restore,
        _prune,
        _keygen,
        _version,
        _schema,
        _init,
        _completion,
        _convert,
    ):
        add(commands)
    # For our own processes and the scripts of shells: without help they are not listed.
    commands.add_parser("worker").set_defaults(module="worker")
    complete = commands.add_parser("complete")
    complete.add_argument("cursor", type=int)
    complete.add_argument("words", nargs="+")
    complete.set_defaults(module="complete", parser=parser)
    return parser


_Commands = argparse._SubParsersAction  # argparse has no public name for it


def _command(
    commands: _Commands[argparse.ArgumentParser], name: str, module: str, text: str
) -> argparse.ArgumentParser:
    more = HELP[name]
    parser = commands.add_parser(
        name,
        help=text,
        description=more.description(text),
        epilog=more.epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        parents=[_global_options()],
    )
    parser.set_defaults(module=module)
    return parser


def _global_options() -> argparse.ArgumentParser:
    """Options of all commands; they may stand before or after the name of the command."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--log-format", choices=("text", "json"), help="of stderr; default: text")
    parser.add_argument("-v", "--verbose", action="count", help="say more")
    parser.add_argument("-q", "--quiet", action="count", help="only warnings; -qq: only errors")
    parser.add_argument("--no-color", action="store_true", help="as does NO_COLOR")
    parser.add_argument(
        "--ci",
        action=argparse.BooleanOptionalAction,
        help="annotations, groups and a summary; by default under GitHub Actions and GitLab CI",
    )
    parser.add_argument("--env-file", metavar="FILE", help="more variables, as NAME=VALUE lines")
    return parser


def _file_command(
    commands: _Commands[argparse.ArgumentParser], name: str, module: str, text: str
) -> argparse.ArgumentParser:
    parser = _command(commands, name, module, text)
    parser.add_argument("file", metavar="FILE", help="the configuration")
    parser.add_argument(
        "--allow-commands", action="store_true", help="let ${cmd:...} of the file run programs"
    )
    return parser


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _run(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _file_command(commands, "run", "run", "run the backups")
    parser.add_argument("--backup", action="append", default=[], metavar="NAME", help="only these")
    parser.add_argument("--dry-run", action="store_true", help="say what it would do, do nothing")
    parser.add_argument(
        "--parallel", type=_positive, default=1, metavar="N", help="so many at once"
    )
    parser.add_argument(
        "--progress",
        choices=("auto", "bar", "lines", "json", "off"),
        default="auto",
        help="on stderr: live, a line from time to time, or a JSON object a second; "
        "auto: live on a terminal, else lines",
    )
    _json(parser)


def _check(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _file_command(commands, "check", "check", "check the configuration")
    parser.add_argument(
        "--connect", action="store_true", help="also try every source, program and storage"
    )
    parser.add_argument(
        "--notify", action="store_true", help="also send a test message through each notifier"
    )


def _graph(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _file_command(commands, "graph", "graph", "draw the stages of a backup")
    parser.add_argument("--backup", metavar="NAME", help="only this one")
    parser.add_argument(
        "--format", choices=("text", "mermaid", "dot"), default="text", help="default: text"
    )


def _plan(commands: _Commands[argparse.ArgumentParser]) -> None:
    text = "what a run would do: memory, limits, levels, what rotation would remove"
    parser = _file_command(commands, "plan", "plan", text)
    parser.add_argument("--backup", action="append", default=[], metavar="NAME", help="only these")
    parser.add_argument(
        "--simulate",
        type=_ahead,
        metavar="TIME",
        help="also what the schedule and rotation lead to within this time, such as 90d",
    )
    _json(parser)


def _list(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _file_command(commands, "list", "listing", "list the backups that exist")
    parser.add_argument("--backup", metavar="NAME", help="only this one")
    parser.add_argument("--storage", metavar="NAME", help="only there")
    _json(parser)


def _verify(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _file_command(commands, "verify", "verify", "read backups back and prove them")
    parser.add_argument("--backup", metavar="NAME", help="only this one")
    parser.add_argument("--storage", metavar="NAME", help="only there")
    parser.add_argument(
        "--at", default="latest", metavar="TIME|latest|all", help="which; default: latest"
    )
    _identity(parser)
    parser.add_argument(
        "--digest-only", action="store_true", help="prove the stored bytes, undo no stage"
    )
    _json(parser)


def _restore(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _file_command(commands, "restore", "restore", "bring a backup back")
    parser.add_argument("--backup", required=True, metavar="NAME", help="this one")
    parser.add_argument("--artifact", metavar="NAME", help="only this one")
    parser.add_argument("--host", metavar="NAME", help="taken on this host; default: on this one")
    parser.add_argument(
        "--at", default="latest", metavar="TIME|latest", help="the newest up to then"
    )
    parser.add_argument(
        "--storage", metavar="NAME", help="from there; default: the first that works"
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--to", metavar="TARGET", help="directory, file, or address of a server")
    target.add_argument("--stdout", action="store_true", help="the plain stream to stdout")
    parser.add_argument(
        "--overwrite", "--force", action="store_true", help="replace what exists in TARGET"
    )
    _identity(parser)


def _identity(parser: argparse.ArgumentParser) -> None:
    keys = parser.add_mutually_exclusive_group()
    keys.add_argument("--identity", metavar="FILE", help="private key file for age")
    keys.add_argument("--identity-env", metavar="NAME", help="the variable that has the key")
    keys.add_argument(
        "--identity-prompt", action="store_true", help="ask for the key at the terminal"
    )


def _prune(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _file_command(
        commands, "prune", "prune", "rotate, and clear what dead runs left behind"
    )
    parser.add_argument("--backup", action="append", default=[], metavar="NAME", help="only these")
    parser.add_argument("--dry-run", action="store_true", help="say what it would do, do nothing")
    _json(parser)


def _keygen(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "keygen", "keygen", "make a key pair for the stage age")
    parser.add_argument("file", metavar="FILE", help="new file for the private key; keep it safe")


def _version(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "version", "version_command", "print the version")
    _json(parser)


def _schema(commands: _Commands[argparse.ArgumentParser]) -> None:
    text = "print the JSON Schema of the configuration, for editors"
    parser = _command(commands, "schema", "schema", text)
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="a configuration whose modules are part of it"
    )
    parser.add_argument(
        "--manifest", action="store_true", help="that of the manifests on the storages instead"
    )


def _convert(commands: _Commands[argparse.ArgumentParser]) -> None:
    text = "convert a configuration of nxs-backup v3, and say what that means"
    parser = _command(commands, "convert", "convert", text)
    parser.add_argument("file", metavar="NXS_CONF", help="the main file of v3: nxs-backup.conf")
    parser.add_argument("--output", metavar="FILE", help="new file for it; default: stdout")
    parser.add_argument(
        "--report", metavar="FILE", help="new file for the report; default: what else is free"
    )
    parser.add_argument(
        "--keep-secrets",
        action="store_true",
        help="leave passwords in clear, instead of variables to be set",
    )


def _init(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "init", "init", "write a configuration to start from")
    parser.add_argument(
        "types",
        nargs="*",
        metavar="TYPE",
        type=_component,
        help="sources, stages, storages and notifiers; without any: questions on a terminal, "
        "elsewhere what is found on this machine",
    )
    parser.add_argument("--output", metavar="FILE", help="write there instead of stdout")
    parser.add_argument("--force", action="store_true", help="replace FILE when it exists")
    parser.add_argument("--brief", action="store_true", help="leave out what is optional")


def _component(name: str) -> str:
    from pipeline.cli.init import known_type

    return known_type(name)


def _completion(commands: _Commands[argparse.ArgumentParser]) -> None:
    text = "print what makes a shell complete commands, options and names"
    parser = _command(commands, "completion", "completion", text)
    parser.add_argument(
        "shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="%(choices)s"
    )


def _ahead(text: str) -> float:
    from schemas.base import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if seconds > 3660 * 86400:
        raise argparse.ArgumentTypeError("must be 3660d at most")
    return seconds


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
