"""A real vLLM on the CPU takes new weights: what ``make demo-vllm`` runs.

It makes two tiny models with different random weights, starts vLLM with dummy ones, updates it from
the first, the second and the first again, and compares its tokens with those of fresh engines that
loaded the same files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "vllm"))

from make_model import make_model  # noqa: E402
from vllm_server import VllmServer, fresh_tokens  # noqa: E402

BINARY = os.environ.get(
    "CHECKPOINT_ENGINE_BIN", str(REPOSITORY / ".build/release/checkpoint-engine")
)


def say(text: str) -> None:
    print(text, flush=True)


def update(server: VllmServer, checkpoint: Path) -> None:
    """Runs the program as a user would."""
    command = [BINARY, "update", "--checkpoint-path", str(checkpoint), "--endpoint", server.url]
    say(f"\n$ checkpoint-engine {' '.join(command[1:])}")
    subprocess.run(command, check=True)


def main() -> int:
    """Returns 0 when every token is right."""
    with tempfile.TemporaryDirectory() as folder:
        models = {
            name: make_model(Path(folder) / name, "qwen3", seed)
            for name, seed in (("A", 1), ("B", 2))
        }
        say("asking fresh engines that load the files A and B from disk …")
        expected = {name: fresh_tokens(path) for name, path in models.items()}
        say("starting vLLM with dummy weights …")
        start = time.monotonic()
        with VllmServer(models["A"], Path(folder) / "vllm.log") as server:
            say(f"ready after {time.monotonic() - start:.0f} s at {server.url}")
            say(f"tokens with dummy weights: {server.generate()[0]}")
            right = True
            for name in ("A", "B", "A"):
                update(server, models[name])
                tokens = server.generate()
                is_right = tokens == expected[name]
                right = right and is_right
                say(f"tokens with weights {name}:     {tokens[0]}")
                say(f"a fresh engine's tokens:   {expected[name][0]}")
                say("equal, for every prompt" if is_right else "DIFFERENT")
    say("\nevery token is right" if right else "\nsome tokens are wrong")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
