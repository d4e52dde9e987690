"""`simulate`: how the merge queue would do under a load, by the production plan in virtual time, against an oracle."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from beads.command import GastownCommand, Said, table
from beads.errors import Invalid
from refinery.core.loads import Load, Outcome, Strategy
from refinery.core.simulator import simulate

COLOURS = ("#2563eb", "#059669", "#d97706", "#dc2626", "#7c3aed", "#0891b2")
LOAD = ("per_hour", "workers", "hours", "failing", "conflicting", "seed")  # the options that say what arrives
WIDTH, HEIGHT, LEFT, FOOT = 640, 360, 60, 40


class Command(GastownCommand):
    help = "Simulate the merge queue: turnaround against an oracle that knows every outcome, builds per change."

    def arguments(self, parser: ArgumentParser) -> None:
        """Arguments."""
        parser.add_argument("--per-hour", type=float, default=300, help="changes that arrive")
        parser.add_argument("--workers", type=int, default=300)
        parser.add_argument("--hours", type=float, default=2)
        parser.add_argument("--failing", type=float, default=0.05, help="share of changes that break the build")
        parser.add_argument("--conflicting", type=float, default=0.0, help="share that conflicts with the one before")
        parser.add_argument(
            "--strategies",
            default="train:20,batch:8,train:20+batch:8,alone+train:4+batch:16",
            help="to compare, by commas: serial, train:N (window), batch:N (at most), alone (gated by itself first)",
        )
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--plot", metavar="FILE.svg", help="the distribution of turnaround, drawn")

    def run(self, strategies: str, plot: str | None, **options: Any) -> Any:  # type: ignore[override]
        """Simulate."""
        load = Load(**{name: options[name] for name in LOAD})
        for name in ("failing", "conflicting"):
            value = options[name]
            if not 0 <= value <= 1:
                raise Invalid(f"--{name}: {value} is not between 0 and 1", field=name)
        if not (0 < load.per_hour <= 10_000 and 0 < load.workers <= 100_000 and 0 < load.hours <= 100):
            raise Invalid("--per-hour, --workers and --hours must be positive, and not absurd", field="per_hour")
        wanted = [Strategy.parse(part) for part in strategies.split(",")]
        found = [simulate(load, strategy) for strategy in wanted]
        rows = [_row(outcome) for outcome in found]
        if plot:
            Path(plot).write_text(draw(found))
        return Said(rows, table(rows, list(rows[0])))


def _row(o: Outcome) -> dict[str, Any]:
    return {
        "strategy": o.name,
        "landed": o.landed,
        "P50 ÷ oracle": round(o.p50, 2),
        "P95 ÷ oracle": round(o.p95, 2),
        "P99 ÷ oracle": round(o.p99, 2),
        "builds per change": round(o.builds_per_change, 2),
        "wrongly ejected": o.ejected_wrongly,
    }


def draw(outcomes: list[Outcome]) -> str:
    """An SVG: for each strategy, the share of changes (x) that landed within a multiple of the oracle's time (y)."""
    top = max([o.p99 for o in outcomes if o.ratios] or [1.0])
    lines = []
    for number, outcome in enumerate(outcomes):
        colour = COLOURS[number % len(COLOURS)]
        points = []
        for step in range(101):
            if outcome.ratios:
                ratio = outcome.ratios[min(step * len(outcome.ratios) // 100, len(outcome.ratios) - 1)]
                x = LEFT + (WIDTH - LEFT - 20) * step / 100
                y = HEIGHT - FOOT - (HEIGHT - FOOT - 20) * min(ratio / top, 1)
                points.append(f"{x:.1f},{y:.1f}")
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(points)}"/>')
        lines.append(f'<text x="{LEFT + 12}" y="{28 + 18 * number}" fill="{colour}">{outcome.name}</text>')
    axes = (
        f'<line x1="{LEFT}" y1="{HEIGHT - FOOT}" x2="{WIDTH - 20}" y2="{HEIGHT - FOOT}" stroke="currentColor"/>'
        f'<line x1="{LEFT}" y1="20" x2="{LEFT}" y2="{HEIGHT - FOOT}" stroke="currentColor"/>'
        f'<text x="{LEFT}" y="{HEIGHT - 12}">share of changes, 0 to 100 %</text>'
        f'<text x="8" y="24">{top:.1f}×</text><text x="8" y="{HEIGHT - FOOT}">0×</text>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
    return f'{head}font-size="13">{axes}{"".join(lines)}</svg>\n'
