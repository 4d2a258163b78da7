"""Four ranks on two hosts, which namespaces make, with two simulated GPUs each."""

from __future__ import annotations

import secrets
import subprocess
import tempfile
from pathlib import Path

import pytest
from daemon import wait_until
from reference import ReferenceEngine

# Device memory is counted over all processes of a machine: these tests have devices of their own.
FIRST_DEVICE = 56
RANKS = 4
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def cuda_library():
    command = [str(TESTS.parent / "scripts/build-simulated-cuda")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def engines(cuda_library, monkeypatch):
    """An engine for each host, with a worker on each of its GPUs."""
    visible = range(FIRST_DEVICE, FIRST_DEVICE + RANKS)
    monkeypatch.setenv("SIMULATED_CUDA_DEVICES", str(FIRST_DEVICE + RANKS))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, visible)))
    with tempfile.TemporaryDirectory(prefix="trainer-hosts-") as folder:
        made = []
        try:
            for host in range(2):
                gpus = range(2 * host, 2 * host + 2)
                made.append(ReferenceEngine(Path(folder) / f"{host}.sock", cuda_library, gpus))
            yield made
        finally:
            for engine in made:
                engine.stop()


@pytest.fixture
def second_host():
    """The command that starts a process in another namespace than that of the tests."""
    holder = subprocess.Popen(["unshare", "--ipc", "cat"], stdin=subprocess.PIPE)
    here = Path("/proc/self/ns/ipc").readlink()
    namespace = Path(f"/proc/{holder.pid}/ns/ipc")
    wait_until(
        lambda: holder.poll() is not None or namespace.readlink() != here, "the namespace is there"
    )
    if holder.poll() is not None:
        pytest.skip("this user may not make namespaces")
    yield ["nsenter", f"--ipc={namespace}"]
    holder.communicate()


@pytest.fixture
def run_hosts(launcher, engines, cuda_library, second_host):
    """``run_hosts(scenario, …)``: how it ended on two ranks of each host."""
    variables = [
        {
            "CHECKPOINT_ENGINE_CUDA_LIBRARY": cuda_library,
            "CHECKPOINT_ENGINE_NCCL_LIBRARY": cuda_library,
            "CUDA_VISIBLE_DEVICES": str(FIRST_DEVICE + rank),
            "CHECKPOINT_ENGINE_BUCKET_SIZE": "1MiB",
        }
        for rank in range(RANKS)
    ]

    def run_hosts(scenario, **options):
        for engine in engines:
            engine.ask("fill 90")
        run = launcher()
        ended = run.ranks(
            scenario,
            RANKS,
            variables=variables,
            prefixes=[[], [], second_host, second_host],
            gpus=[gpu for engine in engines for gpu in engine.ids],
            uds=[str(engine.uds) for engine in engines],
            **options,
        )
        ended.check()
        for engine in engines:
            engine.check_holds(run.output)
        assert run.folders.contents() == []
        return ended

    return run_hosts


@pytest.mark.parametrize("owners", [[0, 1, 2, 3], [0, 1], [3]])
def test_parts_on_any_host(run_hosts, owners):
    """What one host has reaches the others; a host may have nothing."""
    ended = run_hosts("spread", owners=owners)
    assert ended.values("metas") == [owners] * RANKS


def test_both_hosts_have_everything(run_hosts):
    ended = run_hosts("halves", seed=secrets.randbelow(1 << 40))
    hosts = ended.values("host")
    assert hosts[0] == hosts[1] != hosts[2] == hosts[3]
    assert ended.values("metas") == [[0, 1, 2, 3]] * RANKS
    for kinds, text, seconds, _ in ended.errors(0).values():
        assert "UpdateError" in kinds
        assert "rank 3" in text or "host 1" in text
        assert seconds < 10
