"""A model of our own: plays a script to coding agents in the language of their API, and keeps books.

It speaks Anthropic Messages, OpenAI Chat Completions and Responses, and Google GenerateContent, streaming and not.
`python -m tests.acceptance.modelserver --port 9000 --play work` serves it by itself.
"""

from tests.acceptance.modelserver.plays import PLAYS, Play
from tests.acceptance.modelserver.server import Booked, ModelServer
from tests.acceptance.modelserver.talk import Turn

__all__ = ["PLAYS", "Booked", "ModelServer", "Play", "Turn"]
