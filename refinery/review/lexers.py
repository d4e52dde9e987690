"""Pygments' lexers, two to four times as fast, with the same tokens. Pure.

A lexer of Pygments tries the rules of its state one after the other, each in a call of its own, and most words of a
line are found by one of the last. Here the rules of a state are alternatives of one regular expression: they are tried
in the same order, but by the machine of `re`. Lexers that do something else than to go through rules stay as they are.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from pygments.lexer import Lexer, RegexLexer
from pygments.lexers import find_lexer_class_for_filename
from pygments.token import Error, Whitespace, _TokenType

Rule = tuple[Callable[..., re.Match[str] | None], Any, Any]  # what it matches, its token or action, its next state
# A rule that refers to its groups, or names them, means something else as a part of a longer expression.
_NEEDS_ITS_GROUPS = re.compile(r"\\[1-9]|\(\?P|\(\?\(")
_FLAGS = re.compile(r"\(\?([aiLmsux]+)\)")
_GROUP = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\((?!\?)", re.DOTALL)  # or what only looks like one


class _Choice(NamedTuple):
    """Several rules at once: the number of the group that was matched last says which of them it is."""

    match: Callable[[str, int], re.Match[str] | None]
    rules: dict[int | None, Rule]


@functools.lru_cache(maxsize=512)
def for_file(name: str) -> Lexer | None:
    """The lexer for a file of that name, or None. Chosen by name only: content is not guessed at."""
    if len(name) > 200:
        return None
    kind = find_lexer_class_for_filename(name)
    if kind is None or kind.__name__ == "TextLexer":
        return None
    return quick(kind)(stripnl=False, ensurenl=False)


@functools.cache
def quick(kind: type[Lexer]) -> type[Lexer]:
    """The same lexer, made fast where it goes through rules, and the rules are the same for all its instances."""
    if not issubclass(kind, RegexLexer) or hasattr(kind, "token_variants"):
        return kind
    made: type[Lexer] = type(kind)(kind.__name__, (kind, _Quick), {})  # type: ignore[misc]
    return made


class _Quick(RegexLexer):
    """Comes right before `RegexLexer` among a lexer's bases, so that what the lexer itself does is done as before."""

    def get_tokens_unprocessed(self, text: str, stack: Iterable[str] = ("root",)) -> Iterator[tuple[int, Any, str]]:
        """As the `RegexLexer` does it."""
        states = [*stack]
        choices = _choices(type(self), states[-1])
        at = 0
        while True:
            for choice in choices:
                if (found := choice.match(text, at)) is not None:
                    break
            else:
                if at >= len(text):
                    return
                if text[at] == "\n":  # what no rule knows ends with its line
                    states = ["root"]
                    choices = _choices(type(self), "root")
                yield at, Whitespace if text[at] == "\n" else Error, text[at]
                at += 1
                continue
            own, action, state = choice.rules[found.lastindex]
            if type(action) is _TokenType:
                yield at, action, found[0]
            elif action is not None:
                yield from action(self, own(text, at))  # once more, for it asks for its groups
            at = found.end()
            if state is not None:
                _move(states, state)
                choices = _choices(type(self), states[-1])


def _move(states: list[str], to: Any) -> None:
    """Push or pop states as a rule says. One always stays, for code may be anything."""
    if isinstance(to, int):
        del states[max(len(states) + to, 1) :]
        return
    if isinstance(to, str):
        to = (to,)
    for one in to:
        if one == "#pop":
            del states[max(len(states) - 1, 1) :]
        elif one == "#push":
            states.append(states[-1])
        else:
            states.append(one)


@functools.cache
def _choices(kind: Any, state: str) -> list[_Choice]:
    """The rules of a lexer's state in their order, in as few expressions as possible."""
    flags = re.compile("", kind.flags).flags
    found: list[_Choice] = []
    parts = [(_part(rule, flags), rule) for rule in kind._tokens[state]]
    for joins, some in groupby(parts, lambda one: one[0] is not None):
        if joins:
            several = list(some)
            # groups make a match expensive: there is an empty one at the end of each rule, and no other
            expression = "|".join(f"(?:{part})()" for part, _ in several)
            rules: dict[int | None, Rule] = {number: rule for number, (_, rule) in enumerate(several, 1)}
            found.append(_Choice(re.compile(expression, flags).match, rules))
        else:
            found += [_Choice(rule[0], dict.fromkeys(_any_group(rule), rule)) for _, rule in some]
    return found


def _part(rule: Rule, flags: int) -> str | None:
    """A rule as a part of a longer expression that has these flags; None where it cannot be one."""
    own: re.Pattern[str] | None = getattr(rule[0], "__self__", None)
    if own is None or own.flags & re.VERBOSE or _NEEDS_ITS_GROUPS.search(own.pattern):
        return None
    part, inline = own.pattern, _FLAGS.match(own.pattern)
    if inline is not None:
        part = f"(?{inline[1]}:{part[inline.end() :]})"
    elif own.flags != flags:
        return None
    return _GROUP.sub(lambda found: "(?:" if found[0] == "(" else found[0], part)


def _any_group(rule: Rule) -> list[int | None]:
    """Whatever the last group of a match of this rule may be."""
    own: re.Pattern[str] = rule[0].__self__  # type: ignore[attr-defined]
    return [None, *range(1, own.groups + 1)]
