"""The verbs of people: each is declared once, beside the function that carries it out.

A verb is known by its subject and its word: `land-now` of a review entry. From its declaration come the console's
action (`refinery.console.actions`), the page's form and button (`refinery.pages.acting`) and the command
(`refinery.management.verbs`). Its function takes the row, `by` and keyword arguments; these are its fields, with their
types and defaults, and its docstring says what it does: all that a call over HTTP and its entry in OpenAPI need, too.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from django.db.models import Model

from beads.actors import Actor
from beads.models import TownRole
from refinery.decisions.subjects import SUBJECTS

LONGEST = 4000  # characters of a text, where its hint says nothing else: what the payload of a fact takes


@dataclass(frozen=True, slots=True)
class Hint:
    """What a field's type does not say. `label`: in a form that a page draws by itself, where it is not its name;
    `help`: of its argument in a shell; `metavar`: how that calls its value; `lines`: of its box in a form.

    `exact`: a text is taken as it is, and not stripped. `positional`, `insist`: in a shell it is no option; it must be
    given there, though a form may leave it out. `shell`: False where a shell has no argument for it.
    """

    help: str = ""
    metavar: str | None = None
    longest: int = LONGEST
    label: str = ""
    lines: int = 1
    exact: bool = False
    positional: bool = False
    insist: bool = False
    shell: bool = True


Heard = Annotated[str, Hint("for whoever works on it next")]


@dataclass(frozen=True, slots=True)
class Field:
    """A keyword argument of a verb's function, or (`part_of`) a part of one that is a dataclass."""

    name: str
    type: Any
    required: bool
    default: Any
    hint: Hint
    part_of: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a verb: of which row, what its function returned, and the values of all its fields."""

    row: Any
    answer: Any
    values: Mapping[str, Any]


def _nothing(outcome: Outcome) -> dict[str, Any]:
    return {}


def _always(row: Any) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Offer:
    """A button for a row: its `label`, what to know before it is pressed, and for which rows it is there.

    It only hides what would be refused: the function decides. `console`, `page`: whether the console offers it, and
    whether the page of its subject draws its form below the others (else the page's template has a place for it).
    `name`: of the console's action, where that is not made of the word and the subject.
    """

    label: str
    warning: str = ""
    when: Callable[[Any], bool] = _always
    console: bool = True
    page: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Shell:
    """The command: its help, and what it answers: `says` (a format of its data, or a function), and `data` beside the
    subject's key. `command`, `word`: where it is not its subject's command, and not the verb's word."""

    help: str
    says: str | Callable[[Outcome], str]
    data: Callable[[Outcome], dict[str, Any]] = _nothing
    command: str = ""
    word: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Pages take its form, at the subject's address and its word. What is said then beside what the page shows: that it
    is `done`, or that it had been said `again` (the function returned False)."""

    done: str = ""
    again: str = ""


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing that a person may decide about one kind of row, in whose town they have at least `role`."""

    subject: type[Model]
    word: str
    run: Callable[..., Any]
    role: TownRole
    fields: tuple[Field, ...]
    offer: Offer | None
    shell: Shell | None
    page: Page | None

    @property
    def name(self) -> str:
        """Its name among all verbs, such as `cancel_bead`; that of the console's action."""
        if self.offer is not None and self.offer.name:
            return self.offer.name
        known = SUBJECTS.get(self.subject)
        noun = known.noun if known else str(self.subject._meta.model_name)
        return f"{self.word.replace('-', '_')}_{noun}"

    def carry_out(self, row: Any, by: Actor, values: Mapping[str, Any]) -> Outcome:
        """Decide it, with what `values` has of its fields; raises GastownError when it is refused."""
        given: dict[str, Any] = {}
        parts: dict[str, dict[str, Any]] = {}
        for field in self.fields:
            if field.name in values:
                of = given
                if field.part_of:
                    of = parts.setdefault(field.part_of, {})
                of[field.name] = values[field.name]
        if parts:
            kinds = get_type_hints(self.run)
            given |= {name: kinds[name](**part) for name, part in parts.items()}
        answer = self.run(row, by=by, **given)
        defaults = {field.name: field.default for field in self.fields if not field.required}
        return Outcome(row, answer, defaults | dict(values))


_VERBS: dict[tuple[type[Model], str], Verb] = {}
Function = TypeVar("Function", bound=Callable[..., Any])


def verb(
    subject: type[Model],
    word: str,
    *,
    role: TownRole = TownRole.OPERATOR,
    offer: Offer | None = None,
    shell: Shell | None = None,
    page: Page | None = None,
) -> Callable[[Function], Function]:
    """Declare the decorated function, of the shape `(row, *, by: Actor, …)`, as the verb `word` of `subject`."""

    def register(function: Function) -> Function:
        fields = tuple(_fields(function))
        made = Verb(subject, word, function, role, fields, offer, shell, page)
        assert (subject, word) not in _VERBS, f"{made.name} is declared twice"
        asked = {field.name for field in fields if field.required} - {"reason"}
        assert not (offer and offer.console and asked), f"{made.name}: the console asks for nothing but a reason"
        _VERBS[subject, word] = made
        return function

    return register


def every() -> tuple[Verb, ...]:
    """All verbs, in the order of their declarations."""
    return tuple(_VERBS.values())


def of(subject: type[Model]) -> tuple[Verb, ...]:
    """The verbs of one kind of row."""
    return tuple(one for one in every() if one.subject is subject)


def on_page(subject: type[Model], word: str) -> Verb | None:
    """The verb that a page's address names, or None."""
    found = _VERBS.get((subject, word))
    if found is not None and found.page is not None:
        return found
    return None


def _fields(function: Callable[..., Any]) -> Iterator[Field]:
    """The keyword arguments of a verb's function, but for `by`."""
    kinds = get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    assert "by" in {p.name for p in parameters} and all(p.kind is p.KEYWORD_ONLY for p in parameters), function
    for one in parameters:
        if one.name == "by":
            continue
        kind = kinds[one.name]
        if dataclasses.is_dataclass(kind):
            inner = get_type_hints(kind, include_extras=True)
            for part in dataclasses.fields(kind):
                yield _field(part.name, inner[part.name], part.default, part_of=one.name)
        else:
            yield _field(one.name, kind, one.default)


def _field(name: str, kind: Any, default: Any, part_of: str = "") -> Field:
    required = default in (inspect.Parameter.empty, dataclasses.MISSING)
    hint = Hint()
    if get_origin(kind) is Annotated:
        kind, hint = get_args(kind)
    given = [one for one in get_args(kind) if one is not type(None)]
    if len(given) < len(get_args(kind)):  # `X | None`
        (kind,) = given
    return Field(name, kind, required, None if required else default, hint, part_of)
