"""Daemons on loopback that update workers on GPUs and read from one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nodes import PULL_S_MAX
from torch_engine_process import zmq_flags

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon import Answer
    from nodes import Node
    from torch_engine_process import TorchEngine


class Places:
    """Starts them."""

    def __init__(self, start: Callable[..., Node]) -> None:
        self._start = start

    def serve(self) -> Node:
        """A daemon that has nothing."""
        return self._start(None, *zmq_flags())

    def join(self, engine: TorchEngine, name: str, *flags: str, source: Node | None = None) -> Node:
        """``checkpoint-engine join``, which updates ``engine`` with what ``source`` has."""
        if source is not None:
            token = source.log.with_name("token")
            flags = ("--source", source.url, "--source-token-file", str(token), *flags)
        return self._start(
            None,
            *("--checkpoint-name", name, "--endpoint", "http://localhost"),
            *("--uds", str(engine.uds), *zmq_flags(), *flags),
            command="join",
            waits=False,
        )

    def update(self, node: Node, name: str, engine: TorchEngine) -> Answer:
        """An update of all workers, with its answer."""
        body: dict[str, Any] = {**engine.instance, "timeout": PULL_S_MAX}
        return node.request("POST", f"/v1/checkpoints/{name}/update", body, PULL_S_MAX)
