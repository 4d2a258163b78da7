"""Runs examples/trainer_loop.py and saves in a folder, the first argument, what is pushed last."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

import trainer_loop

folder = Path(sys.argv.pop(1))
push = trainer_loop.push


def saving(ps, tensors, version, engine):
    save_file(tensors, folder / f"part-{os.environ['RANK']}.safetensors")
    push(ps, tensors, version, engine)


trainer_loop.push = saving
trainer_loop.main()
