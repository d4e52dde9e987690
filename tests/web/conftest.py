"""The cast at the doors: a running polecat with its token, a viewer, a reviewer, an operator."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from agents.models import Run
from tests.db.conftest import Place


@pytest.fixture
def place(db: None) -> Place:
    """The usual town."""
    return Place()


class Agent:
    """A running agent that calls tools."""

    def __init__(self, client: Client, run: Run, token: str) -> None:
        self.client, self.run, self.token = client, run, token

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.client.post(
            path, body if body is not None else {}, content_type="application/json",
            headers={"Authorization": f"Bearer {self.token}", **headers},
        )  # fmt: skip

    def call(self, tool: str, **arguments: Any) -> Any:
        return self.post(f"/api/tools/{tool}", arguments)


@pytest.fixture
def polecat(place: Place, client: Client) -> Agent:
    """A polecat at work on a bead."""
    place.bead("Paint the fence")
    place.tick()
    run, token = place.running(kind="polecat")
    return Agent(client, run, token)


@pytest.fixture
def viewer(db: None) -> Client:
    """May look."""
    client = Client()
    client.force_login(User.objects.create_user("victor"))
    return client


@pytest.fixture
def reviewer(db: None) -> Client:
    """May review."""
    user = User.objects.create_user("rita")
    user.user_permissions.add(Permission.objects.get(codename="can_review"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator(db: None) -> Client:
    """May steer."""
    client = Client()
    client.force_login(User.objects.create_superuser("olga"))
    return client
