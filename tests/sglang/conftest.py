"""SGLang's own code, as a process on a simulated GPU; see ``scripts/setup-sglang-worker``."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "faults")]

from checkpoints import read_digests, write_checkpoint  # noqa: E402
from daemon import Daemon, Folders, environment  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = TESTS.parent
SGLANG = REPOSITORY / ".build/sglang"
# Devices of these tests alone: the simulation counts memory by device, over all processes.
FIRST_DEVICE = 60
DEVICES = 2
START_S = 120


class SGLangEngine:
    """One engine with one worker; ``models`` is 2 with one that drafts."""

    def __init__(self, gpu: int, models: int, library: str, log: Path) -> None:
        paths = [SGLANG / "wheel", SGLANG / "imports", TESTS / "faults", REPOSITORY / "python"]
        variables = {
            **environment(),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "CHECKPOINT_ENGINE_CUDA_LIBRARY": library,
        }
        script = Path(__file__).with_name("engine_process.py")
        self.gpu = gpu
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(script), library, str(gpu), str(models)],
                env=variables,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("port "), log.read_text()[-3000:]
        self.port = int(line.split()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def instance(self) -> dict[str, object]:
        return {"update_url": self.url, "engine": "sglang", "ranks": [self.gpu]}

    def request(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, json.dumps(body))
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def state(self) -> Any:
        """What its models hold, its version, and how often its cache was flushed."""
        return self.request("GET", "/state")

    def fault(self, **faults: str) -> None:
        """Empties the models and sets faults by role: ``load`` or ``hook``."""
        self.request("POST", "/fault", faults)

    def log(self) -> str:
        return self._log.read_text()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture(scope="session", autouse=True)
def simulated_devices() -> Iterator[str]:
    """The library of the simulated driver; every process that a test starts sees two devices."""
    for folder in ("wheel/sglang", "imports"):
        assert (SGLANG / folder).is_dir(), "run scripts/setup-sglang-worker first"
    command = [str(REPOSITORY / "scripts/build-simulated-cuda")]
    library = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMULATED_CUDA_DEVICES", str(FIRST_DEVICE + DEVICES))
        visible = range(FIRST_DEVICE, FIRST_DEVICE + DEVICES)
        patch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, visible)))
        yield library


@pytest.fixture(scope="session")
def engines(
    simulated_devices: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[int, SGLangEngine]]:
    """One engine without and one with a model that drafts, by the number of their models."""
    logs = tmp_path_factory.mktemp("logs")
    started = {
        models: SGLangEngine(models - 1, models, simulated_devices, logs / f"{models}.log")
        for models in (1, 2)
    }
    yield started
    for engine in started.values():
        engine.close()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("files") / "step", seed=os.getpid())


@pytest.fixture(scope="session")
def digests(checkpoint: Path) -> Any:
    """As they come back as JSON."""
    return json.loads(json.dumps(read_digests(checkpoint)))


@pytest.fixture
def daemon(simulated_devices: str, checkpoint: Path) -> Iterator[Daemon]:
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="sglang-") as shared_memory,
        tempfile.TemporaryDirectory(prefix="sglang-") as runtime,
    ):
        folders = Folders(Path(shared_memory), Path(runtime))
        flags = ["--device", "cuda", "--cuda-library", simulated_devices]
        with Daemon(folders, Path(runtime) / "api.sock", *flags) as daemon:
            assert daemon.register("step", checkpoint).status == 200
            yield daemon


@pytest.fixture
def update(daemon: Daemon) -> Callable[..., Any]:
    """Updates engines and returns the daemon's answer."""

    def run(*engines: SGLangEngine, **fields: object) -> Any:
        body = {"instances": [engine.instance for engine in engines], "timeout": 60, **fields}
        return daemon.request("POST", "/v1/checkpoints/step/update", body, timeout=90)

    return run
