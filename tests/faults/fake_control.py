"""What a fake engine does besides taking weights: it pauses, sleeps, and has a version."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    import threading

Body = dict[str, object]
Scripted = int | Literal["hang"]


@dataclass
class Control:
    """State and log of one engine; thread-safe as far as its tests need it.

    ``answers`` scripts calls by their path: a status, or ``hang``. ``holds`` keeps calls of a path
    waiting until their event is set. The calls come in ``calls`` as ``METHOD TARGET BODY``.
    """

    answers: dict[str, Scripted] = field(default_factory=dict)
    holds: dict[str, threading.Event] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    paused: str | None = None
    asleep: set[str] = field(default_factory=set)
    version: str | None = None
    # So often the cache is told to be held by requests.
    held_resets: int = 0

    def note(self, method: str, target: str, body: bytes, token: str | None) -> None:
        text = body.decode() if len(body) < 200 else "…"
        self.calls.append(" ".join(filter(None, (method, target, text))))
        self.tokens.add(token)

    def paths(self) -> list[str]:
        """The paths that were called, in their order."""
        return [call.split()[1].split("?")[0] for call in self.calls]

    def scripted(self, target: str) -> Scripted | None:
        path = urlsplit(target).path
        if path in self.holds:
            assert self.holds[path].wait(60), f"nobody lets {path} go"
        return self.answers.get(path)

    def answer(self, target: str, body: bytes) -> Body | None:
        """What a call of vLLM or of SGLang does; ``None`` for a path that is neither's."""
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        given = json.loads(body) if body else {}
        result: Body | None = {}
        match parts.path:
            case "/pause":
                [self.paused] = query["mode"]
                assert query["clear_cache"] in (["true"], ["false"])
            case "/pause_generation":
                self.paused = given["mode"]
                assert self.paused in ("abort", "in_place", "retract")
            case "/resume" | "/continue_generation":
                assert not self.asleep, "an engine that sleeps must not be let go"
                self.paused = None
            case "/is_sleeping":
                result = {"is_sleeping": bool(self.asleep)}
            case "/wake_up":
                self._wake(query["tags"])
            case "/resume_memory_occupation":
                self._wake(given["tags"])
            case "/update_weight_version":
                self.version = given["new_version"]
            case _:
                result = None
        return result

    def _wake(self, tags: list[str]) -> None:
        for tag in tags:
            self.asleep.remove(tag)  # what does not sleep cannot be woken up
