"""The form of a verb: what a person typed, in a browser or a shell, becomes the arguments of the verb's function.

Whatever is wrong is one clear error that names its field; see `beads.forms`.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django import forms

from beads.errors import GastownError, Invalid
from beads.finders import bead_of
from beads.forms import Fields, Refusal
from beads.ledger import check_text
from beads.models import Bead
from refinery.decisions.verbs import Field, Verb
from refinery.files import moment

Items = Sequence[Mapping[str, Any]]  # of a request for changes: file, line, problem


class Entered(forms.Field):
    """Base of our fields: `read` turns what was typed into a value, or raises GastownError. Nothing typed: None."""

    widget: type[forms.Widget] = forms.TextInput

    def __init__(self, field: Field, widget: forms.Widget | None = None) -> None:
        hint = field.hint
        super().__init__(required=field.required, label=hint.label or None, help_text=hint.help, widget=widget)
        self.field = field

    def clean(self, value: Any) -> Any:
        """The value."""
        try:
            return self.read("" if value is None else str(value))
        except GastownError as error:
            raise Refusal(error) from None

    def read(self, text: str) -> Any:
        """What a text means."""
        raise NotImplementedError

    def must_be_there(self, text: str) -> bool:
        """False where nothing was typed; Invalid where something must be."""
        return bool(check_text(self.field.name, text, len(text), required=self.required))


class Text(Entered):
    """Words."""

    def __init__(self, field: Field) -> None:
        super().__init__(field, forms.Textarea({"rows": field.hint.lines}) if field.hint.lines > 1 else None)
        self.widget.attrs["maxlength"] = field.hint.longest

    def read(self, text: str) -> str:
        """The words, stripped; they may be empty where they need not be there."""
        hint = self.field.hint
        stripped = check_text(self.field.name, text, hint.longest, required=self.required)
        if hint.exact:
            return text
        return stripped


class Number(Entered):
    """A whole number."""

    widget = forms.NumberInput

    def read(self, text: str) -> int | None:
        """The number, of at most nine digits."""
        if not self.must_be_there(text):
            return None
        if not re.fullmatch(r"-?[0-9]{1,9}", text.strip()):
            raise Invalid(f"{self.field.name} is not a number", field=self.field.name)
        return int(text)


class Ticked(Entered):
    """A box: it is ticked when it is there, whatever its value; a shell says so in words."""

    widget = forms.CheckboxInput

    def read(self, text: str) -> bool:
        """Whether it is ticked."""
        return text not in ("", "False")


class Moment(Entered):
    """A time."""

    def read(self, text: str) -> dt.datetime | None:
        """The time, which has a zone."""
        if self.must_be_there(text):
            return moment(self.field.name, text)
        return None


class OfBead(Entered):
    """The id of a bead."""

    def read(self, text: str) -> Bead | None:
        """The bead; raises NotFound."""
        if self.must_be_there(text):
            return bead_of(text.strip())
        return None


class Itemised(Entered):
    """`file:line: what to do`, one a line."""

    widget = forms.Textarea

    def read(self, text: str) -> list[dict[str, Any]]:
        """The items."""
        items: list[dict[str, Any]] = []
        for row in text.splitlines():
            if not row.strip():
                continue
            file, _, rest = row.strip().partition(":")
            line, _, problem = rest.partition(":")
            if not line.strip().isdigit() or not problem.strip():
                name = self.field.name
                raise Invalid(f"{name}: {row.strip()[:80]!r} is not file:line: what to do", field=name)
            items.append({"file": file, "line": int(line), "problem": problem.strip()})
        return items


KINDS: tuple[tuple[Any, Callable[[Field], Entered]], ...] = (
    (str, Text),
    (int, Number),
    (bool, Ticked),
    (dt.datetime, Moment),
    (Bead, OfBead),
    (Items, Itemised),
)


@functools.cache
def form_of(verb: Verb) -> type[Fields]:
    """The form of a verb."""
    made = {field.name: next(make for kind, make in KINDS if kind == field.type)(field) for field in verb.fields}
    return type(f"{verb.name.title().replace('_', '')}Form", (Fields,), made)
