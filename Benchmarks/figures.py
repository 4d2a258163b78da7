"""Figures, their thresholds, and how they are shown."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path

THRESHOLDS = Path(__file__).with_name("thresholds.json")


@dataclass
class Figure:
    """One measured figure."""

    name: str
    value: float
    unit: str
    what: str
    samples: dict[str, list[float]] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def passes(self) -> bool | None:
        """Whether the figure is within its threshold; ``None`` without one."""
        if not self.limits:
            return None
        above = self.value >= self.limits.get("min", float("-inf"))
        return above and self.value <= self.limits.get("max", float("inf"))

    def document(self) -> dict[str, object]:
        """What the JSON file has of it."""
        return {
            "value": round(self.value, 6),
            "unit": self.unit,
            "what": self.what,
            "threshold": self.limits or None,
            "passes": self.passes,
            "samples": {
                name: [round(value, 6) for value in values] for name, values in self.samples.items()
            },
        }

    def row(self) -> str:
        """One line of the table."""
        limit = " ".join(f"{word} {value:g}" for word, value in self.limits.items())
        verdict = {True: "ok", False: "MISSED", None: ""}[self.passes]
        return f"{self.name:38} {self.value:10.3f} {self.unit:6} {limit:10} {verdict:7} {self.what}"


class Figures:
    """All figures of one run."""

    def __init__(self, thresholds: Path = THRESHOLDS) -> None:
        self._limits: dict[str, dict[str, float]] = json.loads(thresholds.read_text())
        self.all: list[Figure] = []

    def add(self, name: str, value: float, unit: str, what: str, **samples: list[float]) -> None:
        """Takes a figure, with the measurements that it comes from, and shows it."""
        figure = Figure(name, value, unit, what, samples, self._limits.get(name, {}))
        self.all.append(figure)
        print(figure.row(), flush=True)

    @property
    def missed(self) -> list[str]:
        """Figures outside their thresholds, and thresholds without a figure."""
        unknown = self._limits.keys() - {figure.name for figure in self.all}
        return [f.name for f in self.all if f.passes is False] + sorted(unknown)

    def document(self) -> dict[str, object]:
        """All figures by name."""
        return {figure.name: figure.document() for figure in self.all}


def median(values: list[float]) -> float:
    """The middle of ``values``."""
    return statistics.median(values)
