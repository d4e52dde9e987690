"""Verbs as commands: each declared verb that has a `Shell` is a subcommand of its subject's command."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from beads.command import GastownCommand, Said, actor
from refinery.decisions import verbs
from refinery.decisions.forms import form_of
from refinery.decisions.subjects import SUBJECTS


def add_verbs(command: GastownCommand, parsers: Any, name: str) -> None:
    """Add to `command`, which is called `name`, the verbs that it has."""
    for verb in verbs.every():
        shell = verb.shell
        if shell is None or name != (shell.command or SUBJECTS[verb.subject].command):
            continue
        argument = _argument(verb, name)
        parser = command.sub(parsers, shell.word or verb.word, _runner(verb, shell, argument), shell.help)
        parser.add_argument(argument)
        for field in verb.fields:
            if field.hint.shell:
                _add(parser, field)


def _argument(verb: verbs.Verb, name: str) -> str:
    """What the subject's key is called: in a command of other subjects, by the kind of row that it is."""
    subject = SUBJECTS[verb.subject]
    if subject.command == name:
        return subject.argument
    return subject.noun


def _add(parser: ArgumentParser, field: verbs.Field) -> None:
    hint = field.hint
    if hint.positional:
        parser.add_argument(field.name, metavar=hint.metavar, help=hint.help)
        return
    option = f"--{field.name.replace('_', '-')}"
    if field.type is bool:
        parser.add_argument(option, action="store_true", help=hint.help)
        return
    kind: type[int] | type[str] = str
    if field.type is int:
        kind = int
    must = field.required or hint.insist
    parser.add_argument(option, type=kind, required=must, metavar=hint.metavar, help=hint.help)


def _runner(verb: verbs.Verb, shell: verbs.Shell, argument: str) -> Callable[..., Any]:
    def run(**options: Any) -> Said:
        """Find the row, decide, and say what follows."""
        row = SUBJECTS[verb.subject].find(options[argument])
        names = {field.name for field in verb.fields if field.hint.shell}
        typed = {name: str(value) for name, value in options.items() if name in names and value is not None}
        outcome = verb.carry_out(row, actor(), form_of(verb)(typed).values())
        data = {argument: options[argument], **shell.data(outcome)}
        if isinstance(shell.says, str):
            return Said(data, shell.says.format(**data))
        return Said(data, shell.says(outcome))

    return run
