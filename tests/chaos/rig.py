"""A daemon and an engine that troubles happen to, and the questions that are asked after each."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from daemon import Answer, Daemon, Folders, wait_until
from reference_engine import ReferenceEngine

if TYPE_CHECKING:
    import random

WORKERS = 2
LAYERS = 48
LAYER_BYTES = 256 << 10
UPDATE_S = 20.0
# A free checkpoint, an engine that is not asked by anybody else: nothing may take longer.
RECOVERY_S = 30.0


def write_checkpoint(path: Path, seed: int) -> Path:
    """One file of so many tensors that an update takes long enough to be met by a trouble."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"model.layers.{layer}.weight": torch.randint(
            0, 256, (LAYER_BYTES,), dtype=torch.uint8, generator=generator
        )
        for layer in range(LAYERS)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


@dataclass(frozen=True)
class Held:
    """What a daemon holds."""

    descriptors: int
    threads: int
    resident_mib: float

    @classmethod
    def of(cls, pid: int) -> Held:
        process = Path("/proc") / str(pid)
        resident = next(
            int(line.split()[1])
            for line in (process / "status").read_text().splitlines()
            if line.startswith("VmRSS:")
        )
        return cls(
            descriptors=len([*(process / "fd").iterdir()]),
            threads=len([*(process / "task").iterdir()]),
            resident_mib=resident / 1024,
        )


class Rig:
    """The processes, the files, and what is known to be right. A context."""

    NAMES = ("first", "second", "in-place")

    def __init__(self, random: random.Random) -> None:
        self.random = random
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folders = Folders(
            Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))),
            Path(self._stack.enter_context(tempfile.TemporaryDirectory())),
        )
        place = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        memory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        self._place = place
        self._socket = place / "api.sock"
        first = write_checkpoint(place / "first/model.safetensors", 1)
        self.files = {
            "first": first,
            "second": write_checkpoint(place / "second/model.safetensors", 2),
            "in-place": memory / "model.safetensors",
        }
        # What is to be compared with while the file in use is damaged.
        self.originals = {**self.files, "in-place": first}
        shutil.copy(first, self.files["in-place"])
        self.start_daemon()
        self.start_engine()
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            for program in (self.daemon.program, self.engine.program):
                if kind is None:
                    program.send(signal.SIGTERM)
                    ended = program.wait(20)
                    ended.check_orderly()
                elif program.is_running:
                    program.kill()
            if kind is None:
                assert self.folders.contents() == [], "what the daemon has left"
        finally:
            self._stack.close()

    def start_daemon(self) -> None:
        self.update_count = 0
        self.daemon = Daemon(self.folders, self._socket)

    def start_engine(self) -> None:
        self.engine = ReferenceEngine(self._place / f"engine-{time.monotonic_ns()}.sock", WORKERS)

    def update(self, name: str, timeout: float = UPDATE_S) -> Answer:
        self.update_count += 1
        return self.daemon.update(
            name, "http://localhost", uds=str(self.engine.uds), timeout=timeout
        )

    # What comes after a trouble

    def recover(self) -> None:
        """Starts what has ended, and registers what is gone."""
        if not self.daemon.program.is_running:
            self.start_daemon()
        if not self.engine.program.is_running:
            self.start_engine()
        self.engine.respawned()
        damaged = self.files["in-place"]
        original = self.originals["in-place"]
        if damaged.read_bytes() != original.read_bytes():
            self.forget("in-place")
            # Written beside and moved over it, as the guide says.
            fresh = damaged.with_suffix(".new")
            shutil.copy(original, fresh)
            fresh.replace(damaged)
        for name in self.NAMES:
            answer = self.daemon.request("GET", f"/v1/checkpoints/{name}")
            if answer.status == 404:
                registered = self.daemon.register(name, self.files[name])
                assert registered.status == 200, registered.body

    def forget(self, name: str) -> None:
        def is_gone() -> bool:
            answer = self.daemon.unregister(name)
            # What ended an update may still be about to end it.
            return answer.status in (200, 404)

        wait_until(is_gone, f"{name} can be unregistered", RECOVERY_S)

    def check_next_update(self, name: str) -> None:
        """The next update is right, byte for byte, whatever the workers held before."""
        self.engine.ask(f"fill {self.random.randrange(256)}")
        end = time.monotonic() + RECOVERY_S
        while True:
            answer = self.update(name)
            if answer.status == 200:
                break
            code = answer.body["error"]["code"]
            # An update that is ending, or an in-place file that the trouble has damaged meanwhile.
            assert code == "busy", answer.body
            assert time.monotonic() < end, answer.body
            time.sleep(0.02)
        self.engine.check_holds(self.originals[name])

    def check_nothing_left(self) -> None:
        """No socket of an ended update, no directory of a daemon that is gone."""
        places = [*self.folders.runtime.iterdir()]
        assert len(places) == 1, places
        assert len([*self.folders.shared_memory.iterdir()]) == 1
        wait_until(
            lambda: not [path for path in places[0].iterdir() if path.is_socket()],
            "the sockets of ended updates are gone",
        )


class RunningUpdate:
    """An update that goes on while something happens to it. A context that waits for its end."""

    def __init__(self, rig: Rig, name: str) -> None:
        self._rig = rig
        self._name = name
        self.answer: Answer | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        # A daemon that is killed answers nothing.
        with suppress(OSError):
            self.answer = self._rig.update(self._name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(UPDATE_S + RECOVERY_S)
        assert not self._thread.is_alive(), f"the update of {self._name} hangs"
