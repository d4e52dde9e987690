"""The typed config of towns and rigs. Pure. Unknown or ill-typed keys are refused by their full name.

A town's and a rig's overrides are stored as plain JSON; `effective` lays the rig's over the town's over the
defaults. Source of keys and defaults: the contract's section *Config*. One file for each subject; `whole` puts them
together.
"""

from beads.config.agents import AgentCommand, AgentsConfig, Preset, SandboxConfig, SandboxMode, Sessions
from beads.config.refinery import (
    BatchConfig,
    Gate,
    GateWhen,
    MergeMethod,
    MergeStrategy,
    RefineryConfig,
    TrainConfig,
    Triage,
)
from beads.config.whole import Config, effective, parse_toml, problems, to_toml, usable, validate
from beads.config.work import ConvoyConfig, DispatchConfig, GitConfig, MergeMode, Publish
from beads.limits import FiledBeads, LimitsConfig, NotifyConfig, PatrolConfig, PrConfig, RetentionConfig

__all__ = [
    "AgentCommand",
    "AgentsConfig",
    "BatchConfig",
    "Config",
    "ConvoyConfig",
    "DispatchConfig",
    "FiledBeads",
    "Gate",
    "GateWhen",
    "GitConfig",
    "LimitsConfig",
    "MergeMethod",
    "MergeMode",
    "MergeStrategy",
    "NotifyConfig",
    "PatrolConfig",
    "PrConfig",
    "Preset",
    "Publish",
    "RefineryConfig",
    "RetentionConfig",
    "SandboxConfig",
    "SandboxMode",
    "Sessions",
    "TrainConfig",
    "Triage",
    "effective",
    "parse_toml",
    "problems",
    "to_toml",
    "usable",
    "validate",
]
