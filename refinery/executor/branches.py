"""Branches on the remote: cut for a convoy, looked at, published for people, deleted once their change has landed."""

from __future__ import annotations

from agents.models import Run
from beads.errors import GastownError
from beads.models import ConvoyBranch, Rig
from refinery.core import effects
from refinery.executor.registry import Result, does
from refinery.git.mirror import fetch_target, repo_of


@does(effects.CreateBranch)
def create_branch(work: effects.CreateBranch) -> Result | None:
    """Cut a convoy's feature branch from the default branch, once."""
    branch = ConvoyBranch.objects.select_related("rig").get(pk=work.branch)
    repo = repo_of(branch.rig)
    base = fetch_target(branch.rig, repo, branch.rig.default_branch)
    sha = repo.create_branch(branch.rig.remote_url, branch.name, base)
    return "branch.seen", str(branch.pk), {"sha": sha, "asked_at": work.asked_at.isoformat()}


@does(effects.ObserveBranch)
def observe_branch(work: effects.ObserveBranch) -> Result | None:
    """Look where a convoy's feature branch stands; an empty SHA says the remote has no such branch."""
    branch = ConvoyBranch.objects.select_related("rig").get(pk=work.branch)
    sha = repo_of(branch.rig).ls_remote(branch.rig.remote_url, branch.name)
    return "branch.seen", str(branch.pk), {"sha": sha or "", "asked_at": work.asked_at.isoformat()}


@does(effects.DeleteBranch)
def delete_branch(work: effects.DeleteBranch) -> Result | None:
    """Delete a branch whose change the target is seen to contain; keep it when it moved or when it does not."""
    rig = Rig.objects.get(pk=work.rig)
    repo_of(rig).delete_branch(rig.remote_url, work.branch, work.sha)
    return None


@does(effects.Publish)
def publish(work: effects.Publish) -> Result | None:
    """Push what a run's shim had to keep local."""
    run = Run.objects.select_related("rig").get(pk=work.run)
    if run.head_sha and run.branch:
        found = repo_of(run.rig).create_branch(run.rig.remote_url, run.branch, run.head_sha)
        if found != run.head_sha:
            raise GastownError(f"branch {run.branch} is at {found[:12]} on the remote, not at {run.head_sha[:12]}")
    return "run.published", run.pk, {}
