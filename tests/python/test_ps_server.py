"""``ParameterServer`` as the only rank, with the real daemon and a worker on a thread."""

from __future__ import annotations

import os
import socket
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import zmq
from checkpoint_engine import rank_identity
from checkpoint_engine.daemon_process import DaemonProcess, DaemonSetup, stop_daemon
from checkpoint_engine.data_types import MemoryBufferMetaList
from checkpoint_engine.errors import UpdateError
from checkpoint_engine.metas_json import metas_from_values
from checkpoint_engine.ps import ParameterServer
from checkpoint_engine.ps_errors import (
    ArgumentError,
    CheckpointNameError,
    DaemonLostError,
    DaemonRefusedError,
    FileKindError,
    MetasError,
    ParameterServerError,
    RankDeadlineError,
    TensorTypeError,
)
from checkpoint_engine.worker import update_weights_from_ipc
from ports import free_port
from safetensors.torch import save_file
from worker_thread import REPOSITORY, Recorder

TIMEOUT = timedelta(seconds=20)


@pytest.fixture
def shared():
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="ps-shared-") as folder:
        yield Path(folder)


@pytest.fixture
def settings(monkeypatch, shared):
    """Directories of its own for the daemon, and none of the variables that change the tests."""
    binary = os.environ.get("CHECKPOINT_ENGINE_BIN", ".build/release/checkpoint-engine")
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "CHECKPOINT_ENGINE_DAEMON"):
        monkeypatch.delenv(name, raising=False)
    with tempfile.TemporaryDirectory(prefix="ps-runtime-") as runtime:
        monkeypatch.setenv("CHECKPOINT_ENGINE_BIN", str(REPOSITORY / binary))
        monkeypatch.setenv("CHECKPOINT_ENGINE_SHARED_MEMORY_DIR", str(shared))
        monkeypatch.setenv("CHECKPOINT_ENGINE_RUNTIME_DIR", runtime)
        monkeypatch.setenv("CHECKPOINT_ENGINE_BUCKET_SIZE", "4KiB")
        yield Path(runtime)
        assert list(Path(runtime).iterdir()) == []
        assert list(shared.iterdir()) == []


def start(**changes):
    usual = {"rank": 0, "world_size": 1, "master_addr": "127.0.0.1", "master_port": free_port()}
    return ParameterServer(**(usual | changes))


@pytest.fixture
def server(settings):
    with start() as server:
        yield server


class Engine:
    """``req_func`` of an engine with one worker, in this process."""

    def __init__(self):
        self.recorder = Recorder()
        self.paths = []

    def __call__(self, paths):
        self.paths.append(paths)
        [(worker, address)] = paths
        context = zmq.Context()
        try:
            update_weights_from_ipc(
                context,
                address,
                run=self.recorder.run,
                post_hook=self.recorder.post_hook,
                worker_id=worker,
            )
        finally:
            context.term()


def check_loaded(engine, expected):
    loaded = engine.recorder.loaded
    assert sorted(loaded) == sorted(expected)
    for name, tensor in expected.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        first, second = (
            one.contiguous().view(-1).view(torch.uint8) for one in (loaded[name], tensor)
        )
        assert torch.equal(first, second), name


def deliver(server, name="step"):
    engine = Engine()
    server.gather_metas(name)
    server.update(name, engine, timeout=TIMEOUT)
    assert engine.recorder.commits == 1
    return engine


def some(prefix="w", count=5):
    return {f"{prefix}.{place}": torch.randn(40, 17 + place) for place in range(count)}


def test_files_and_tensors_together(server, shared, tmp_path):
    on_disk, in_memory, named = some("disk"), some("memory"), some("named")
    save_file(on_disk, tmp_path / "a.safetensors")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "b.safetensors"
        save_file(in_memory, path)
        files = [str(tmp_path / "a.safetensors"), str(path)]
        server.register_checkpoint("step", files=files, named_tensors=named)
        for tensor in named.values():
            before = tensor.clone()
            tensor.zero_()  # what was registered are copies
            named = {**named, next(k for k, v in named.items() if v is tensor): before}
        check_loaded(deliver(server), on_disk | in_memory | named)
        metas = server.get_metas()[0]
        sizes = {
            meta.name: (meta.dtype, meta.shape, meta.aligned_size)
            for item in metas.memory_buffer_metas_list
            for meta in item.metas
        }
        assert sorted(sizes) == sorted(on_disk | in_memory | named)
        assert sizes["disk.0"] == (torch.float32, torch.Size([40, 17]), 2816)
        server.unregister_checkpoint("step", force=True)
        assert path.exists(), "files of the user are never removed"


def test_directories(server, tmp_path):
    first, second = some("a"), some("b")
    save_file(first, tmp_path / "model-1-of-2.safetensors")
    save_file(second, tmp_path / "model-2-of-2.safetensors")
    server.register_checkpoint("step", files=[str(tmp_path)])
    check_loaded(deliver(server), first | second)


def test_a_taken_name_keeps_what_it_has(server):
    first = some()
    server.register_checkpoint("step", named_tensors=first)
    with pytest.raises(CheckpointNameError, match="rank 0 has registered step already"):
        server.register_checkpoint("step", named_tensors=some())
    check_loaded(deliver(server), first)


def test_two_checkpoints_at_once(server):
    first, second = some(), some()
    server.register_checkpoint("first", named_tensors=first)
    server.register_checkpoint("second", named_tensors=second, use_shared_memory_pool=True)
    check_loaded(deliver(server, "second"), second)
    check_loaded(deliver(server, "first"), first)
    server.unregister_checkpoint("first")
    check_loaded(deliver(server, "second"), second)


def test_memory_is_kept_until_force(server, shared):
    server.register_checkpoint("step", named_tensors=some())
    server.unregister_checkpoint("step")
    [kept] = shared.rglob("checkpoint-engine-tensors-*/*.safetensors")
    inode = kept.stat().st_ino
    server.register_checkpoint("next", named_tensors=some())
    assert kept.stat().st_ino == inode
    server.unregister_checkpoint("next", force=True)
    assert not kept.exists()


def test_force_after_unregister_gives_back_what_is_kept(server, shared):
    server.register_checkpoint("step", named_tensors=some())
    server.unregister_checkpoint("step")
    server.unregister_checkpoint("step", force=True)
    assert list(shared.rglob("*.safetensors")) == []


def test_nothing_to_register(server):
    server.register_checkpoint("step")
    server.unregister_checkpoint("unknown")
    server.gather_metas("step")
    assert server.get_metas() == {}
    with pytest.raises(UpdateError, match="no rank has registered anything as step"):
        server.update("step", Engine(), timeout=TIMEOUT)


def test_an_update_of_what_is_unregistered(server):
    server.register_checkpoint("step", named_tensors=some())
    server.gather_metas("step")
    server.unregister_checkpoint("step")
    with pytest.raises(UpdateError, match=r"call gather_metas\('step'\)"):
        server.update("step", Engine(), timeout=TIMEOUT)


def test_a_port_that_is_taken(settings):
    port = free_port()
    taken = pytest.raises(RankDeadlineError, match=rf":{port}: .*ip_local_port_range")
    with socket.create_server(("127.0.0.1", port)), taken:
        start(master_port=port)
    start(master_port=port).close()


@pytest.mark.parametrize("kind", ["npy", "pt", "bin", "safetensors.gz"])
def test_other_kinds_of_files(server, tmp_path, kind):
    path = tmp_path / f"model.{kind}"
    path.write_bytes(b"?")
    with pytest.raises(FileKindError, match=str(path)):
        server.register_checkpoint("step", files=[str(path)])
    server.register_checkpoint("step", named_tensors=some())


def test_a_bad_file_is_named_and_the_name_stays_free(server, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(DaemonRefusedError, match=str(path)) as raised:
        server.register_checkpoint("step", files=[str(path)], named_tensors=some())
    assert raised.value.code == "invalid_checkpoint"
    good = some()
    server.register_checkpoint("step", named_tensors=good)
    check_loaded(deliver(server), good)


def test_the_same_tensor_twice_in_one_rank(server, tmp_path):
    save_file(some(), tmp_path / "a.safetensors")
    with pytest.raises(DaemonRefusedError, match=r"w\.\d") as raised:
        server.register_checkpoint(
            "step", files=[str(tmp_path / "a.safetensors")], named_tensors=some()
        )
    assert raised.value.code == "invalid_checkpoint"


def test_a_refused_tensor_leaves_nothing(server, shared):
    with pytest.raises(TensorTypeError, match="odd"):
        server.register_checkpoint("step", named_tensors={"odd": torch.eye(3).to_sparse()})
    assert list(shared.rglob("*.safetensors")) == []
    server.register_checkpoint("step", named_tensors=some())


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "x" * 109, 7, "sp ace"])
def test_impossible_names(server, name):
    with pytest.raises(ArgumentError, match="cannot be the name of a checkpoint"):
        server.register_checkpoint(name, named_tensors=some())


def test_a_failed_load_reaches_the_caller_and_the_next_update_works(server):
    named = some()
    server.register_checkpoint("step", named_tensors=named)
    server.gather_metas("step")
    engine = Engine()

    def refuse(_):
        raise LookupError("the engine has no such weight")

    engine.recorder.run = refuse
    with pytest.raises(UpdateError, match="the engine has no such weight") as raised:
        server.update("step", engine, timeout=TIMEOUT)
    assert raised.value.__cause__ is not None
    check_loaded(deliver(server), named)


def test_metas_can_be_loaded(server):
    metas = {3: MemoryBufferMetaList(None, [], "mlx5_0")}
    server.load_metas(metas)
    assert server.get_metas() == metas
    answer = server._daemon.client.request("GET", "/v1/metas")
    assert metas_from_values(answer) == metas
    with pytest.raises(MetasError, match="the metas of rank 1 are a str"):
        server.load_metas({1: "anything"})
    with pytest.raises(MetasError, match="the metas have no tensors"):
        server.update("step", Engine(), timeout=TIMEOUT)


def test_attributes_can_be_set(server):
    server._p2p_store = None
    server.something = 1


def test_closed(settings, shared):
    server = start()
    server.register_checkpoint("step", named_tensors=some())
    server.close()
    server.close()
    assert list(shared.iterdir()) == []
    for call in (server.gather_metas, server.unregister_checkpoint, server.register_checkpoint):
        with pytest.raises(ParameterServerError, match="is closed"):
            call("step")


def test_it_closes_when_nobody_refers_to_it(settings, shared):
    server = start()
    server.register_checkpoint("step", named_tensors=some())
    assert list(shared.iterdir()) != []
    del server
    assert list(shared.iterdir()) == []


def test_a_named_daemon_is_used_and_left_alone(settings, monkeypatch):
    with tempfile.TemporaryDirectory() as folder:
        own = rank_identity.process_state(os.getpid())[1]
        setup = DaemonSetup(Path(folder) / "named.sock", (os.getpid(), own), "host")
        DaemonProcess(setup)
        try:
            monkeypatch.setenv("CHECKPOINT_ENGINE_DAEMON", f"unix:{setup.socket}")
            for _ in range(2):
                named = some()
                with start() as server:
                    server.register_checkpoint("step", named_tensors=named)
                    check_loaded(deliver(server), named)
                    names = setup.client.request("GET", "/v1/checkpoints")["checkpoints"]
                    assert sorted(one["name"] for one in names) == ["step", "step.rank0"]
                assert setup.client.request("GET", "/v1/checkpoints") == {"checkpoints": []}
            stop_daemon(setup)
            with pytest.raises(DaemonLostError, match=str(setup.socket)):
                start()
        finally:
            stop_daemon(setup)


def test_rank_0_is_an_argument(settings, monkeypatch):
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "6")
    with start() as server:
        server.store_based_barrier(timedelta(seconds=5))
        assert (server._rank, server._world_size) == (0, 1)


def test_the_environment(settings, monkeypatch):
    port = free_port()
    for name, value in (("RANK", 0), ("WORLD_SIZE", 1), ("MASTER_PORT", port - 1)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with ParameterServer(auto_pg=False, gpu_count=8, mem_fraction=0.5) as server:
        assert server._store.port == port


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mem_fraction": 0.0}, "mem_fraction is 0.0"),
        ({"mem_fraction": 1.5}, "mem_fraction"),
        ({"gpu_count": 0}, "gpu_count is 0"),
        ({"rank": None}, "RANK is not set"),
        ({"rank": -1}, "rank is -1"),
        ({"world_size": 0}, "world_size is 0"),
        ({"world_size": "many"}, "no number"),
        ({"master_addr": None}, "MASTER_ADDR is not set"),
        ({"master_port": None}, "MASTER_PORT is not set"),
    ],
)
def test_impossible_arguments(settings, changes, words):
    with pytest.raises(ArgumentError) as raised:
        start(**changes)
    assert words in str(raised.value)


def test_default_group_of_somebody_else_is_kept(server):
    import torch.distributed as torch_distributed
    from checkpoint_engine import distributed

    store = torch_distributed.HashStore()
    torch_distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        server.init_process_group()
        server.register_checkpoint("step", named_tensors=some())
        deliver(server)
        assert distributed.is_initialized()
    finally:
        torch_distributed.destroy_process_group()
    server.init_process_group()
    deliver(server)
    assert not torch_distributed.is_initialized()
