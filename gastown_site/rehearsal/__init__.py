"""A model of our own: plays a script to coding agents in the language of their API, and keeps books.

It speaks Anthropic Messages, OpenAI Chat Completions and Responses, and Google GenerateContent, streaming and not.
`python -m gastown_site.rehearsal --port 9000 --play work` serves it by itself.
"""

from gastown_site.rehearsal.plays import PLAYS, Play
from gastown_site.rehearsal.server import Booked, ModelServer
from gastown_site.rehearsal.talk import Turn

__all__ = ["PLAYS", "Booked", "ModelServer", "Play", "Turn"]
