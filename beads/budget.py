"""Sections of the config about models and money: who serves them, what they cost, what may be spent. Pure.

Money is in US dollars, as a Decimal; prices are dollars for a million tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints

from beads.values import OptionalSecret, Section

MILLION = 1_000_000
NEAR = Decimal("0.8")  # of a cap: from here on people are warned


class Unit(StrEnum):
    """What an amount is of."""

    USD = "USD"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Spent:
    """What was used: tokens of each kind, and money. `unpriced`: tokens whose cost is not known; `uncounted`: calls
    whose usage is not known, or only in part."""

    calls: int = 0
    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    uncounted: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of all kinds."""
        return self.input + self.cached + self.written + self.output

    def __add__(self, other: Spent) -> Spent:
        pairs = {name: getattr(self, name) + getattr(other, name) for name in Spent.__slots__}
        return Spent(**pairs)


@dataclass(frozen=True, slots=True)
class Amount:
    """A cap: dollars, or tokens of all kinds."""

    value: Decimal
    unit: Unit

    def __str__(self) -> str:
        return money(self.value) if self.unit is Unit.USD else tokens(int(self.value))

    def of(self, spent: Spent) -> Amount:
        """What was spent, in this amount's unit."""
        return Amount(spent.cost if self.unit is Unit.USD else Decimal(spent.tokens), self.unit)

    def share(self, spent: Spent) -> Decimal:
        """How much of it is spent: 1 is all."""
        return self.of(spent).value / self.value


def money(value: Decimal) -> str:
    """Dollars for people: cents, and more digits where it is less than ten of them."""
    text = f"{value:.2f}" if value >= Decimal("0.1") or value == 0 else f"{value:.6f}".rstrip("0")
    return f"{text} USD"


def tokens(count: int) -> str:
    """A number of tokens for people, such as "1.5M tokens"."""
    for letter, size in (("M", MILLION), ("k", 1000)):
        if count >= size:
            return f"{count / size:.4g}{letter} tokens"
    return f"{count} tokens"


class CapScope(StrEnum):
    """What a cap of `[budget]` is on."""

    RUN = "run"
    BEAD = "bead"
    CONVOY = "convoy"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Cap:
    """A cap that holds, and what was spent under it. `subject`: a run, bead, convoy or day; `parts`: on what it was
    spent, the dearest first."""

    scope: CapScope
    subject: str
    limit: Amount
    spent: Spent
    parts: tuple[tuple[str, Spent], ...] = ()

    @property
    def reached(self) -> bool:
        """True when there is nothing left of it."""
        return self.limit.share(self.spent) >= 1

    @property
    def near(self) -> bool:
        """True when people are to be warned."""
        return self.limit.share(self.spent) >= NEAR

    def __str__(self) -> str:
        what = "the town's day" if self.scope is CapScope.DAY else f"{self.scope} {self.subject}"
        blind = ""
        if self.limit.unit is Unit.USD and self.spent.unpriced:
            blind = f" ({tokens(self.spent.unpriced)} have no price and are not in it)"
        return f"{what} has used {self.limit.of(self.spent)} of {self.limit}{blind}"


_AMOUNT = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(?:(USD|\$)|([kKM])?\s*tokens?)")


def parse_amount(value: object) -> Amount | None:
    """`"5 USD"` or `"2M tokens"` → Amount; "" is none. Raises ValueError for anything else, and for nothing at all."""
    if isinstance(value, Amount) or value is None or value == "":
        return value or None  # type: ignore[return-value]
    found = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError('expected an amount such as "5 USD" or "2M tokens", or "" for none')
    number = Decimal(found[1])
    if not found[2]:
        number *= {"k": 1000, "K": 1000, "M": MILLION}.get(found[3] or "", 1)
    if not number or (not found[2] and number != int(number)):
        raise ValueError("an amount must be more than 0, and tokens are whole ones")
    return Amount(number, Unit.USD if found[2] else Unit.TOKENS)


def format_amount(value: Amount | None) -> str:
    """The inverse of `parse_amount`."""
    return f"{value.value.normalize():f} {value.unit}" if value is not None else ""


Budget = Annotated[Amount | None, BeforeValidator(parse_amount), PlainSerializer(format_amount)]


class BudgetConfig(Section):
    """[budget]: what may be spent by one run, on one bead (all its attempts, reviews, reworks, conflicts), on a convoy,
    and by the town in a day (UTC). At 80 % people are warned, at 100 % it stops and a person is asked."""

    run: Budget = None
    bead: Budget = None
    convoy: Budget = None
    day: Budget = None

    @property
    def any(self) -> bool:
        """True when anything is capped."""
        return any(value is not None for value in (self.run, self.bead, self.convoy, self.day))


_Rate = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]


class Price(Section):
    """What a model costs: dollars for a million tokens. `cached`: read from the provider's cache; `written`: written to
    it, where that is priced apart; both are `input`'s unless they are said."""

    input: _Rate
    output: _Rate
    cached: _Rate | None = None
    written: _Rate | None = None

    def cost(self, spent: Spent) -> Decimal:
        """Dollars for these tokens."""
        cached = self.input if self.cached is None else self.cached
        written = self.input if self.written is None else self.written
        rates = (self.input, cached, written, self.output)
        counts = (spent.input, spent.cached, spent.written, spent.output)
        return sum((n * Decimal(str(rate)) for n, rate in zip(counts, rates, strict=True)), Decimal(0)) / MILLION


ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x20]+$")]
Prices = Annotated[dict[ModelName, Price], Field(max_length=500)]
_VERSION = re.compile(r"[-@](\d{8}|\d{4}-\d\d-\d\d|\d{3}|latest)$")


def price_of(prices: Mapping[str, Price], *names: str) -> Price | None:
    """The price of a model by the first of its names that has one; a dated name has that of the undated one."""
    for name in names:
        for key in (name, _VERSION.sub("", name)):
            if key in prices:
                return prices[key]
    return None


BaseUrl = Annotated[
    str, StringConstraints(max_length=500, pattern=r"^(https?://[A-Za-z0-9.\-:\[\]]+(/[A-Za-z0-9._~/-]*)?)?$")
]


class ProviderConfig(Section):
    """Who serves an API's models. `base_url`: as the CLIs take it, in place of the provider's own address; `secret`:
    the name of the town's secret that is its key, in place of the usual one; `scripted`: what is there plays a script,
    as in the demo: pages say so, and that nothing of what is booked is charged."""

    base_url: BaseUrl = ""
    secret: OptionalSecret = ""
    scripted: bool = False


class ProvidersConfig(Section):
    """[providers.…]"""

    anthropic: ProviderConfig = ProviderConfig()
    openai: ProviderConfig = ProviderConfig()
    google: ProviderConfig = ProviderConfig()

    @property
    def scripted(self) -> list[str]:
        """The APIs whose models play a script."""
        return [name for name, one in dict(self).items() if one.scripted]
