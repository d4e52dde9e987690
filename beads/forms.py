"""What all forms of people's pages and of the console share: one clear error that names its field, and the way back."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest
from django.utils.http import url_has_allowed_host_and_scheme

from beads.errors import GastownError, Invalid


class Refusal(forms.ValidationError):
    """A field's error that is one of ours: `Fields.values` raises it as it is."""

    def __init__(self, error: GastownError) -> None:
        super().__init__(error.message, code=error.code)
        self.error = error


class Fields(forms.Form):
    """A form whose first error is raised instead of being drawn beside its field."""

    def values(self) -> dict[str, Any]:
        """What was filled in, by field; what was left out is not among it. Raises GastownError naming the field."""
        for name, errors in self.errors.as_data().items():
            first = errors[0]
            if isinstance(first, Refusal):
                raise first.error
            raise Invalid(f"{name}: {' '.join(first.messages)}", field=name)
        return {k: v for k, v in self.cleaned_data.items() if k in self.data and v is not None}


class WayBack(forms.Form):
    """Where a person was when they pressed the button."""

    next = forms.CharField(required=False)

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request.POST)
        self.request = request

    def leads_back(self, url: str) -> bool:
        """True for what one may be sent to: an address of ours."""
        return url_has_allowed_host_and_scheme(url, {self.request.get_host()}, self.request.is_secure())

    @property
    def url(self) -> str:
        """The address; empty when none was given that one may be sent to."""
        if self.is_valid() and self.leads_back(self.cleaned_data["next"]):
            return str(self.cleaned_data["next"])
        return ""
