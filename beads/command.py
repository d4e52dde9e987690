"""The base of Gastown's commands: `--json`, one clear line for a refusal, exit codes 0, 1, 2.

A command parses, makes one call, and replies. With `--json` one document goes to stdout: `{"ok": true, "data": …}` or
`{"ok": false, "error": {"code", "message", "details"}}`; logs go to stderr.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError
from django.utils import timezone

from beads.actors import Actor
from beads.errors import GastownError
from beads.replies import refuse


@dataclass(frozen=True)
class ExitWith:
    """Data with an exit code other than 0."""

    data: Any
    code: int


@dataclass(frozen=True)
class Said:
    """Data, and how a person reads it. `note`: what to know about it, which is no part of the data. `warnings` go to
    stderr, whatever is asked for."""

    data: Any
    text: str
    note: str = ""
    warnings: Sequence[str] = ()


def noted(data: dict[str, Any], text: str, notes: Sequence[str], warnings: Sequence[str] = ()) -> Said:
    """Data and text with notes: what is no error, but should be seen to."""
    return Said({**data, "notes": [*notes]}, "\n".join([text, *(f"note: {note}" for note in notes)]), warnings=warnings)


def actor() -> Actor:
    """Who types: `cli:<user>`."""
    try:
        return Actor("cli", pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:
        return Actor("cli", str(os.geteuid()))


class GastownCommand(BaseCommand):
    """Subclasses implement `arguments(parser)` and handlers that return data, `Said` or `ExitWith`."""

    requires_system_checks = []
    stealth_options = ("as_json", "run")

    def add_arguments(self, parser: CommandParser) -> None:
        """`--json` here and on every subcommand, then the command's own."""
        _with_json(parser)
        self.arguments(parser)

    def arguments(self, parser: ArgumentParser) -> None:
        """Declare arguments; subcommands through `self.sub`."""

    def subcommands(self, parser: ArgumentParser) -> Any:
        """The subparsers of a command with verbs."""
        return parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=ArgumentParser)

    def sub(self, parsers: Any, name: str, run: Callable[..., Any], text: str) -> ArgumentParser:
        """Add a verb that is carried out by `run(**options)`."""
        parser: ArgumentParser = parsers.add_parser(name, help=text, description=text)
        _with_json(parser, suppress=True)
        parser.set_defaults(run=run)
        return parser

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the handler and reply."""
        as_json = bool(options.pop("as_json", False))
        run = options.pop("run", None) or self.run
        try:
            result = run(**options)
        except GastownError as error:
            refuse(error, as_json=as_json)
        except (DatabaseError, OSError) as error:
            if options.get("traceback"):
                raise
            line = str(error).strip().splitlines()[0] if str(error).strip() else ""
            refuse(GastownError(f"{type(error).__name__}: {line}", code="internal"), as_json=as_json)
        code = 0
        if isinstance(result, ExitWith):
            result, code = result.data, result.code
        for warning in result.warnings if isinstance(result, Said) else ():
            self.stderr.write(f"warning: {warning}")
        text = result.text if isinstance(result, Said) else None
        if isinstance(result, Said) and result.note:
            if as_json:
                self.stderr.write(result.note)
            text = f"{text}\n{result.note}"
        data = result.data if isinstance(result, Said) else result
        if as_json:
            self.stdout.write(json.dumps({"ok": code == 0, "data": data}, default=str))
        elif text is not None:
            if text:
                self.stdout.write(text)
        elif data is not None:
            self.stdout.write(json.dumps(data, indent=2, default=str))
        self.stdout.flush()
        if code:
            sys.exit(code)

    def run(self, **options: Any) -> Any:
        """The handler of a command without verbs."""
        raise NotImplementedError


def _with_json(parser: ArgumentParser, *, suppress: bool = False) -> None:
    from argparse import SUPPRESS

    parser.add_argument(
        "--json",
        dest="as_json",
        action="store_true",
        default=SUPPRESS if suppress else False,
        help="one JSON document on stdout",
    )


def table(rows: list[dict[str, Any]], columns: list[str], empty: str = "none") -> str:
    """Rows as aligned text."""
    if not rows:
        return empty
    cells = [[" ".join(str("" if r.get(c) is None else r.get(c)).split()) for c in columns] for r in rows]
    widths = [max(len(c), *(len(row[n]) for row in cells)) for n, c in enumerate(columns)]
    lines = ["  ".join(c.upper().ljust(widths[n]) for n, c in enumerate(columns)).rstrip()]
    lines += ["  ".join(cell.ljust(widths[n]) for n, cell in enumerate(row)).rstrip() for row in cells]
    return "\n".join(lines)


def ago(moment: Any) -> str:
    """How long ago, roughly."""
    if moment is None:
        return ""
    seconds = int((timezone.now() - moment).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"
