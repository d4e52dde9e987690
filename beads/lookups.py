"""`column__any=[…]`: as `__in`, but one array for PostgreSQL instead of a parameter for each value.

A queue of 500 asks for what hangs on its entries; making and quoting 500 parameters costs more than the query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import Field, Lookup
from django.db.models.fields.related import ForeignObject

if TYPE_CHECKING:
    Base = Lookup[Any]
else:
    Base = Lookup


class AnyOf(Base):
    """True for rows whose column is one of the values; for none when there are no values."""

    lookup_name = "any"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """The comparison and its one parameter."""
        column, params = self.process_lhs(compiler, connection)
        return f"{column} = any(%s)", (*params, list(self.rhs))


Field.register_lookup(AnyOf)
ForeignObject.register_lookup(AnyOf)
