"""Paths of the chaos tests: they use the real program as the fault tests do."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "faults")]
