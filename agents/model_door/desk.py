"""What the model door asks the database: whose call it is, whether it may be made, with which key; and what it used."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import structlog
from django.db import InterfaceError, OperationalError, connections
from django.utils import timezone

from agents import keys, tokens, usage
from agents.model_door.apis import Api, Kind, Refusal, Route
from agents.models import Run
from beads import config as configs
from beads import inbox, owner, secrets
from beads.budget import BudgetConfig, Price
from beads.errors import GastownError

log = structlog.get_logger(__name__)
T = TypeVar("T")
TRIES = (0.2, 1.0, 5.0)  # seconds between tries to write down what was used


@dataclass(frozen=True)
class Pass:
    """A call that may be made: for which run, where, with which key. `named`: the owner lets towns reach that place,
    whatever its address; `own`: it is the provider's own, which no town has chosen; `secret`: the name of the key."""

    run: Run
    base: str
    key: str
    secret: str
    named: bool
    own: bool
    prices: Mapping[str, Price]
    budget: BudgetConfig


def admit(token: str, where: Route) -> Pass:
    """May the bearer of `token` make this call now? Raises Refusal, with words that its CLI shows."""
    return _asking(lambda: _admit(token, where))


def whose(token: str) -> Run:
    """The live run whose token this is. Raises Refusal."""
    return _asking(lambda: _run(token))


def _asking(question: Callable[[], T]) -> T:
    """Ask the database from a thread of the door's."""
    try:
        return question()
    except (OperationalError, InterfaceError) as error:
        log.error("model_door.database", error=" ".join(str(error).split()))
        raise Refusal(503, "the database cannot be reached now", again=True) from None
    finally:
        connections.close_all()


def _run(token: str) -> Run:
    if not token:
        raise Refusal(401, "the model door wants the run's own token (GASTOWN_TOKEN) as its key")
    run = tokens.live_run(token)
    if run is None:
        if tokens.fenced_run(token) is not None:
            raise Refusal(403, "this run has ended: its calls are refused")
        raise Refusal(401, "unknown token: the model door wants the run's own (GASTOWN_TOKEN) as its key")
    if run.exited_at is not None:
        raise Refusal(403, "this run has ended: its calls are refused")
    return run


def _admit(token: str, where: Route) -> Pass:
    run, api = _run(token), where.api
    config, _ = configs.usable(run.town.config, run.rig.config)
    for cap in usage.caps(run, config.budget, timezone.now()):
        if cap.reached and where.kind is not Kind.FREE:
            inbox.wake(run.town)
            raise Refusal(402, f"The budget is used up: {cap}. The run is being stopped and a person is asked")
    name = keys.secret_of(config, api.of, secrets.names(run.town))
    if not name:
        wanted, town = keys.wanted(config, api.of)[0], run.town.slug
        sentence = f"Town {town} has no key for {api.name}: gastown secret set {wanted} --town {town}"
        tell(run, api, "key", "", sentence)
        raise Refusal(401, sentence)
    try:
        key = secrets.values(run.town, [name])[name].strip()
    except GastownError as error:
        log.error("model_door.key", error=error.message)
        raise Refusal(500, f"the secret {name} cannot be read: {error.message}") from None
    if not key.isascii() or not key.isprintable():
        raise Refusal(401, f"the secret {name} is no key: it has characters that no key has")
    base = keys.base_url(config, api.of)
    return Pass(run, base, key, name, _named(base), base == api.of.url, config.prices, config.budget)


def _named(base: str) -> bool:
    """True when the owner has named the place of a base URL."""
    host, port = owner.place_of(base)
    return owner.allowed().place(host, port)


def tell(run: Run, api: Api, fault: str, model: str, sentence: str) -> None:
    """What only a person can mend of a run's calls becomes one sentence where a person looks, once for each run."""
    told = {"api": api.name, "fault": fault, "model": model, "message": sentence[:1000]}
    inbox.record(
        run.town, "model.refused", run.pk, told, actor="gastown", dedupe_key=f"model:{run.pk}:{api.name}:{fault}"
    )


def tell_later(run: Run, api: Api, fault: str, model: str, sentence: str) -> None:
    """As `tell`, from a thread of its own."""
    try:
        tell(run, api, fault, model, sentence)
    except (OperationalError, InterfaceError) as error:
        log.error("model_door.database", error=" ".join(str(error).split()))
    finally:
        connections.close_all()


def book(may: Pass, reading: usage.Reading) -> None:
    """Write down what a call used, and wake the town when a cap is near. A database that is away is tried again; what
    cannot be written at last is logged."""
    run = may.run
    for wait in (*TRIES, None):
        try:
            usage.book(run, reading, may.prices, timezone.now())
            if any(cap.near for cap in usage.caps(run, may.budget, timezone.now())):
                inbox.wake(run.town)
            return
        except (OperationalError, InterfaceError) as error:
            if wait is None:
                log.error("model_door.not_booked", run=run.pk, spent=repr(reading.spent), error=str(error))
                return
        finally:
            connections.close_all()
        time.sleep(wait)
