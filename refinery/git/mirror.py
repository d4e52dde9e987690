"""Which repository is a rig's: its bare mirror under GASTOWN_HOME."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from beads.models import Rig
from refinery.git.repo import Repo


def repo_of(rig: Rig) -> Repo:
    """The rig's bare mirror, made when missing."""
    return Repo.open_or_create(Path(settings.GASTOWN_HOME) / "repos" / f"{rig.pk}.git")
