"""The model by itself: prints its address, then serves until it is stopped."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from gastown_site.rehearsal import PLAYS, ModelServer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--play", choices=sorted(PLAYS), default="work")
parser.add_argument("--trace", type=Path)
given = parser.parse_args()
with ModelServer(given.play, host=given.host, port=given.port, trace=given.trace) as model:
    sys.stdout.write(f"{model.url}\n")
    sys.stdout.flush()
    while True:
        time.sleep(3600)
