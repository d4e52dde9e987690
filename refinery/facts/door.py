"""What was carried out at the door, by the same single writers, because it could not wait for the tick."""

from __future__ import annotations

from refinery.facts.payloads import Payload, Reason
from refinery.facts.registry import at_the_door

at_the_door("run.start_failed", "secret.set", "secret.remove", "rig.host_key", says=Payload)
at_the_door("town.pause", "town.resume", "rig.park", "rig.unpark", "lane.freeze", "lane.thaw", says=Reason)
at_the_door("config.set", "rig.default_branch", "fact.release", "effect.again", says=Reason)
