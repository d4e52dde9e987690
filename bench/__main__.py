"""`python -m bench [name…]`: figures as ratios measured in one run; each bench in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from bench import candidates, dispatching, fair, landing, lanes, pages, reviews, tickers, ticks, train

BENCHES = {
    "candidates": candidates.main,
    "landing": landing.main,
    "train": train.main,
    "ticks": ticks.main,
    "tickers": tickers.main,
    "lanes": lanes.main,
    "dispatching": dispatching.main,
    "fair": fair.main,
    "reviews": reviews.main,
    "pages": pages.main,
}


def main() -> int:
    """Run the named bench here, or several one after the other."""
    names = sys.argv[1:] or list(BENCHES)
    if unknown := set(names) - set(BENCHES):
        print(f"no bench {sorted(unknown)[0]}: there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    if len(names) == 1:
        print(f"\n== {names[0]}", flush=True)
        BENCHES[names[0]]()
        return 0
    return max(subprocess.run([sys.executable, "-m", "bench", name], check=False).returncode for name in names)


if __name__ == "__main__":
    sys.exit(main())
