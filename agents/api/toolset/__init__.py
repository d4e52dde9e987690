"""The tools that every agent has, and the mayor's. The refinery adds its own in `refinery.agent_tools`."""

from __future__ import annotations

from agents.api.toolset import beads, convoys, talk, usage, work

__all__ = ["beads", "convoys", "talk", "usage", "work"]  # each registers its tools on import
