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
            line = str(error).strip().partition("\n")[0]
            refuse(GastownError(f"{type(error).__name__}: {line}", code="internal"), as_json=as_json)
        code = 0
        if isinstance(result, ExitWith):
            result, code = result.data, result.code
        if isinstance(result, Said):
            self._say(result, code, as_json=as_json)
        elif as_json:
            self._document(result, code)
        elif result is not None:
            self.stdout.write(json.dumps(result, indent=2, default=str))
        self.stdout.flush()
        if code:
            sys.exit(code)

    def _say(self, result: Said, code: int, *, as_json: bool) -> None:
        """Its data, or its text; beside JSON, what is for people goes to stderr."""
        for warning in result.warnings:
            self.stderr.write(f"warning: {warning}")
        if as_json:
            if result.note:
                self.stderr.write(result.note)
            self._document(result.data, code)
            return
        text = result.text
        if result.note:
            text = f"{text}\n{result.note}"
        if text:
            self.stdout.write(text)

    def _document(self, data: Any, code: int) -> None:
        self.stdout.write(json.dumps({"ok": code == 0, "data": data}, default=str))

    def run(self, **options: Any) -> Any:
        """The handler of a command without verbs."""
        raise NotImplementedError


def _with_json(parser: ArgumentParser, *, suppress: bool = False) -> None:
    from argparse import SUPPRESS

    options: dict[str, Any] = {"dest": "as_json", "action": "store_true", "help": "one JSON document on stdout"}
    if suppress:
        options["default"] = SUPPRESS
    parser.add_argument("--json", **options)


def table(rows: list[dict[str, Any]], columns: list[str], empty: str = "none") -> str:
    """Rows as aligned text."""
    if not rows:
        return empty
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(c), *(len(row[n]) for row in cells)) for n, c in enumerate(columns)]
    lines = ["  ".join(c.upper().ljust(widths[n]) for n, c in enumerate(columns)).rstrip()]
    lines += ["  ".join(cell.ljust(widths[n]) for n, cell in enumerate(row)).rstrip() for row in cells]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return " ".join(str(value).split())


def ago(moment: Any) -> str:
    """How long ago, roughly."""
    if moment is None:
        return ""
    seconds = int((timezone.now() - moment).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"
