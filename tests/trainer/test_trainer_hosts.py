"""Four ranks on two hosts, which namespaces make, with two simulated GPUs each."""

from __future__ import annotations

import json
import secrets
import subprocess
import tempfile
from pathlib import Path

import pytest
from daemon import wait_until, write_secret
from nodes import TOKEN, starting_nodes
from reference import SimulatedEngine, small_checkpoint

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
                made.append(SimulatedEngine(Path(folder) / f"{host}.sock", cuda_library, gpus))
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
    """``run_hosts(scenario, …)``: how it ended on two ranks of each host.

    The engines hold ``checkpoint`` in the end, by default what the ranks have written; ``more`` are
    variables of all ranks.
    """
    variables = [
        {
            "CHECKPOINT_ENGINE_CUDA_LIBRARY": cuda_library,
            "CHECKPOINT_ENGINE_NCCL_LIBRARY": cuda_library,
            "CUDA_VISIBLE_DEVICES": str(FIRST_DEVICE + rank),
            "CHECKPOINT_ENGINE_BUCKET_SIZE": "1MiB",
        }
        for rank in range(RANKS)
    ]

    def run_hosts(scenario, checkpoint=None, more=None, **options):
        for engine in engines:
            engine.ask("fill 90")
        run = launcher()
        ended = run.ranks(
            scenario,
            RANKS,
            variables=[one | (more or {}) for one in variables],
            prefixes=[[], [], second_host, second_host],
            gpus=[gpu for engine in engines for gpu in engine.ids],
            uds=[str(engine.uds) for engine in engines],
            **options,
        )
        ended.check()
        for engine in engines:
            engine.check_holds(checkpoint or run.output)
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


def test_no_rank_of_a_host(run_hosts):
    """The daemons deliver together what the ranks have registered: all of them or none."""
    ended = run_hosts("spread,leave_out_a_host", owners=[0, 1])
    for place, hosts in enumerate((["2, 3"], ["0, 1"])):
        errors = ended.errors(place)
        assert len({text for _, text, _, _ in errors.values()}) == 1
        for kinds, text, seconds, _ in errors.values():
            assert "ArgumentError" in kinds
            assert [part.partition(")")[0] for part in text.split("(rank ")[1:]] == hosts
            assert "load the metas of daemons that have all of it" in text
            assert seconds < 10


@pytest.fixture
def source():
    """A daemon beside the job that serves; what belongs to it is gone in the end."""
    with starting_nodes() as start:
        yield start()


def test_a_host_updates_alone(run_hosts, source, tmp_path):
    """Each host reads all of it, so that one can be left out, and keeps what it had."""
    old, new = (small_checkpoint(tmp_path / str(seed), seed) for seed in (1, 2))
    assert source.register("new", new).status == 200
    assert source.request("POST", "/v1/checkpoints/new/gather-metas").status == 200
    metas = source.request("GET", "/v1/metas").body
    (tmp_path / "metas-0.json").write_text(json.dumps(metas))
    token = tmp_path / "source-token"
    write_secret(token, TOKEN)
    ended = run_hosts(
        "host_alone",
        checkpoint=new,
        more={"CHECKPOINT_ENGINE_SOURCE_TOKEN_FILE": str(token)},
        fleets=[str(tmp_path)],
        old=str(old),
        new=str(new),
    )
    assert ended.values("held")[0] == [
        [["old"], ["old"]],
        [["new"], ["old"]],
        [["new"], ["new"]],
        [["old"], ["old"]],
        [["old"], ["new"]],
        [["new"], ["new"]],
    ]
    assert ended.values("called") == [[4, 2, 4, 4, 4]] * 2 + [[4, 4, 4, 2, 4]] * 2
