"""How commands, git above all, are run on what a run has left: in its box again, for its files may be hostile.

Stdlib only.
"""

from __future__ import annotations

import resource
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from agents.runtime import gitcmd, processes, sandbox
from agents.runtime.box import Box
from agents.runtime.workspace import Workspace

MEMORY_BYTES = 4 << 30
Inside = Callable[[Sequence[str], Mapping[str, str]], "subprocess.Popen[bytes]"]
"""Starts a command in the run's sandbox: (argv, more environment) → the process, with pipes for input and output."""


def _within_limits() -> None:
    """In the child: die with the shim, and take no more memory than git needs here. It is git alone that runs, for
    seconds: a control group would take as long to make as git takes to answer."""
    processes.die_with_shim()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))


def in_box(space: Workspace, box: Box) -> Inside:
    """The run's own box, without its network, its tools, its home and its secrets; what is seen is the tree, the rescue
    and the mirror's objects. Where there is no sandbox: the plain process."""
    if not box.boxed:
        return outside(space)
    seen = replace(
        box,
        network=("none",),
        tools="",
        home="",
        nested=False,
        env={},
        path=(),
        read_only=(str(space.objects),),
        # where it is called outside, by which it is asked, and where the run knew it: git writes down whole paths
        writable=(str(space.tree), str(space.rescue)),
        tree=str(space.tree),
    )

    def start(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """In the box."""
        ours = ("GIT_CONFIG", "GIT_AUTHOR", "GIT_COMMITTER")
        given = {name: value for name, value in gitcmd.environment().items() if name.startswith(ours)}
        variables = seen.environment({**given, **env})
        command = sandbox.Command(argv, variables, str(space.tree), talks=True)
        started = sandbox.start(seen, command, before=_within_limits, grouped=False)

        def let_go() -> None:
            """When it has ended, in whatever way."""
            started.process.wait()
            started.close()

        threading.Thread(target=let_go, daemon=True).start()
        return started.process

    return start


def outside(space: Workspace) -> Inside:
    """Where there is no sandbox (`[sandbox] mode = "off"`): the same commands as a plain process."""

    def start(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """As it is."""
        return subprocess.Popen(
            list(argv),
            cwd=space.tree,
            env=gitcmd.environment(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    return start
