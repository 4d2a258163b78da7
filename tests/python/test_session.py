"""The worker against a scripted server: updates that succeed, and each way in which one fails."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import scripted_server
import torch
from checkpoint_engine import protocol, session
from checkpoint_engine.errors import (
    AbortedError,
    DeadlineError,
    DTypeError,
    LoadError,
    MemoryHeldError,
    ProtocolError,
    SegmentError,
    ServerLostError,
    VersionError,
)

TENSORS = [(f"layer.{place}.weight", torch.full((4, 5), float(place))) for place in range(10)]


def failure_of(server, message):
    """Sends ``message``, which must be answered by ``error``."""
    server.send(message)
    answer = server.receive()
    assert isinstance(answer, protocol.Failure), answer
    return answer


def end_of_failure(server):
    server.abort("the update failed")


# Updates that succeed


@pytest.mark.parametrize("tensors_each", [1, 3, 10])
def test_an_update(server, memory, recorder, tensors_each):
    worker = recorder.start(server.address)
    catalog = scripted_server.publish(TENSORS, memory, segments=2)
    server.deliver(catalog, tensors_each=tensors_each)
    assert worker.end() is None
    assert list(recorder.loaded) == [name for name, _ in TENSORS]
    for name, tensor in TENSORS:
        assert torch.equal(recorder.loaded[name], tensor)
    assert len(recorder.buckets[0]) == tensors_each
    assert (recorder.commits, recorder.aborts) == (1, 0)


def test_the_signature_that_engines_use(server, memory, recorder):
    """SGLang gives the context, the handle and the device; the id is then the device's."""
    if torch.cuda.is_available():
        pytest.fail("this test expects a machine without CUDA")
    worker = recorder.start(server.address, worker_id=None, abort_hook=None)
    hello = server.greet()
    assert hello.worker == "CPU-0"
    assert hello.software.startswith("checkpoint_engine ")
    assert 1 <= hello.credits <= protocol.CREDITS_MAX
    server.abort("enough")
    assert worker.error(AbortedError) == "enough"


def test_an_update_without_tensors(server, recorder):
    worker = recorder.start(server.address, post_hook=None)
    server.deliver(protocol.Catalog((), ()))
    assert worker.end() is None
    assert recorder.buckets == []


def test_all_credits_at_once(server, memory, recorder):
    worker = recorder.start(server.address)
    catalog = scripted_server.publish(TENSORS, memory)
    credits_ = server.greet().credits
    server.ask(catalog)
    buckets = scripted_server.buckets_of(catalog, 1)
    for bucket in buckets[:credits_]:
        server.send(bucket)
    answers = [server.answer() for _ in range(credits_)]
    assert [answer.index for answer in answers] == list(range(credits_))
    server.reload(buckets[credits_:], credits_)
    assert server.ask(protocol.Release()) == protocol.Released()
    assert recorder.commits == 0
    server.ask(protocol.Commit())
    assert worker.end() is None


def test_the_highest_common_version_is_chosen(server, recorder):
    worker = recorder.start(server.address)
    answer = server.ask(protocol.ServerHello((1, 7), "u", "c", 60_000))
    assert answer.version == 1
    server.abort("enough")
    worker.error(AbortedError)


def test_a_commit_may_still_read_the_tensors(server, memory, recorder):
    kept = []
    sums = []

    def commit():
        sums.extend(float(tensor.sum()) for _, tensor in kept)
        kept.clear()

    worker = recorder.start(server.address, run=kept.extend, post_hook=commit)
    server.deliver(scripted_server.publish(TENSORS, memory))
    assert worker.end() is None
    assert sums == [20.0 * place for place in range(10)]


# Failures of the loader


def test_an_exception_in_run(server, memory, recorder):
    def run(tensors):
        if tensors[0][0] == "layer.3.weight":
            raise ValueError("shapes\ndiffer")
        recorder.run(tensors)

    worker = recorder.start(server.address, run=run)
    with pytest.raises(scripted_server.WorkerFailedError) as caught:
        server.deliver(scripted_server.publish(TENSORS, memory), tensors_each=1)
    failure = caught.value.failure
    assert failure.stage == "bucket"
    assert failure.message == "ValueError: shapes differ"
    assert "in run" in failure.traceback
    assert failure.traceback.rstrip().endswith("differ")
    assert "bucket 3" in worker.error(LoadError)
    assert isinstance(worker.end().__cause__, ValueError)
    assert len(recorder.buckets) == 3
    assert (recorder.commits, recorder.aborts) == (0, 1)


def test_an_exception_in_the_commit(server, memory, recorder):
    def commit():
        raise KeyError("scale")

    worker = recorder.start(server.address, post_hook=commit)
    with pytest.raises(scripted_server.WorkerFailedError) as caught:
        server.deliver(scripted_server.publish(TENSORS, memory))
    assert caught.value.failure.stage == "commit"
    assert caught.value.failure.message == "KeyError: 'scale'"
    worker.error(LoadError)
    assert recorder.aborts == 1


def test_a_load_that_keeps_tensors_fails(server, memory, recorder):
    kept = []
    worker = recorder.start(server.address, run=kept.extend)
    with pytest.raises(scripted_server.WorkerFailedError, match="clone what must outlive"):
        server.deliver(scripted_server.publish(TENSORS, memory))
    worker.error(MemoryHeldError)
    assert kept[3][1].tolist() == TENSORS[3][1].tolist()


def test_a_failing_abort_hook_does_not_hide_the_failure(server, memory, recorder):
    def explode(*_):
        raise OSError("hook")

    worker = recorder.start(server.address, run=explode, abort_hook=explode)
    with pytest.raises(scripted_server.WorkerFailedError, match="OSError: hook"):
        server.deliver(scripted_server.publish(TENSORS, memory))
    worker.error(LoadError)


def test_buckets_after_a_failure_are_answered_but_not_loaded(server, memory, recorder):
    calls = []

    def run(tensors):
        calls.append(tensors[0][0])
        raise ValueError("no")

    worker = recorder.start(server.address, run=run)
    catalog = scripted_server.publish(TENSORS, memory)
    server.greet()
    server.ask(catalog)
    for bucket in scripted_server.buckets_of(catalog, 1)[:4]:
        server.send(bucket)
    answers = [server.receive() for _ in range(4)]
    assert all(isinstance(answer, protocol.Failure) for answer in answers)
    assert answers[0].message == "ValueError: no"
    assert answers[3].traceback == ""
    server.abort("worker CPU-0 failed")
    worker.error(LoadError)
    assert calls == ["layer.0.weight"]


# Failures of others


def test_an_abort_in_every_stage(memory, recorder):
    catalog = scripted_server.publish(TENSORS, memory)
    buckets = scripted_server.buckets_of(catalog, 5)
    for steps in range(6):
        with scripted_server.Server() as server:
            worker = recorder.start(server.address)
            script = [
                server.greet,
                lambda server=server: server.ask(catalog),
                lambda server=server: server.ask(buckets[0]),
                lambda server=server: server.ask(buckets[1]),
                lambda server=server: server.ask(protocol.Release()),
            ]
            for step in script[:steps]:
                step()
            server.send(protocol.Abort("worker CPU-1 (pid 42) failed"))
            assert server.receive() == protocol.Aborted()
            assert worker.error(AbortedError) == "worker CPU-1 (pid 42) failed"
    assert recorder.aborts == 6
    assert recorder.commits == 0


def test_a_server_that_closes(server, memory, recorder):
    worker = recorder.start(server.address)
    server.greet()
    server.ask(scripted_server.publish(TENSORS, memory))
    start = time.monotonic()
    server.close()
    assert "was lost" in worker.error(ServerLostError, timeout=5)
    assert time.monotonic() - start < 1.5
    assert recorder.aborts == 1


def test_a_server_that_is_killed(recorder):
    script = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import scripted_server
        server = scripted_server.Server()
        print(server.address, flush=True)
        server.greet(deadline_ms=600_000)
        print("greeted", flush=True)
        server.receive(600)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        worker = recorder.start(process.stdout.readline().strip())
        assert process.stdout.readline() == "greeted\n"
        start = time.monotonic()
        process.send_signal(signal.SIGKILL)
        worker.error(ServerLostError, timeout=5)
        assert time.monotonic() - start < 1.5


def test_a_server_that_dies_during_a_load(server, memory, recorder):
    def run(tensors):
        recorder.run(tensors)
        server_gone.wait(10)

    server_gone = threading.Event()
    worker = recorder.start(server.address, run=run)
    catalog = scripted_server.publish(TENSORS, memory)
    server.greet()
    server.ask(catalog)
    for bucket in scripted_server.buckets_of(catalog, 1)[:3]:
        server.send(bucket)
    while not recorder.buckets:
        time.sleep(0.01)
    server.close()
    time.sleep(0.2)
    server_gone.set()
    worker.error(ServerLostError, timeout=5)
    assert recorder.buckets == [["layer.0.weight"]], "buckets of a lost server are not loaded"


def test_a_server_that_never_says_hello(server, recorder, monkeypatch):
    monkeypatch.setattr(session, "HANDSHAKE_TIMEOUT_S", 0.4)
    assert "did not send hello" in recorder.start(server.address).error(DeadlineError)


def test_the_deadline_of_the_update(server, memory, recorder):
    worker = recorder.start(server.address)
    start = time.monotonic()
    server.greet(deadline_ms=500)
    server.ask(scripted_server.publish(TENSORS, memory))
    assert "did not send bucket 0" in worker.error(DeadlineError)
    assert 0.4 < time.monotonic() - start < 3
    assert recorder.aborts == 1


def test_an_abort_that_never_comes(server, memory, recorder, monkeypatch):
    monkeypatch.setattr(session, "ABORT_TIMEOUT_S", 0.3)

    def run(_):
        raise ValueError("no")

    worker = recorder.start(server.address, run=run)
    catalog = scripted_server.publish(TENSORS, memory)
    server.greet()
    server.ask(catalog)
    failure_of(server, scripted_server.buckets_of(catalog, 10)[0])
    worker.error(LoadError, timeout=5)


# Servers that break the protocol


def test_no_common_version(server, recorder):
    worker = recorder.start(server.address)
    failure = failure_of(server, protocol.ServerHello((2, 3), "u", "c", 60_000))
    assert failure.stage == "hello"
    assert "[2, 3]" in failure.message
    end_of_failure(server)
    worker.error(VersionError)


@pytest.mark.parametrize(
    ("first", "count", "index"), [(0, 1, 1), (1, 1, 0), (0, 11, 0), (2**53 - 1, 1, 0)]
)
def test_buckets_out_of_order(server, memory, recorder, first, count, index):
    worker = recorder.start(server.address)
    server.greet()
    server.ask(scripted_server.publish(TENSORS, memory))
    failure = failure_of(server, protocol.Bucket(index, first, count))
    assert (failure.stage, recorder.buckets) == ("bucket", [])
    end_of_failure(server)
    assert "expected bucket 0 from tensor 0 of 10" in worker.error(ProtocolError)


def test_a_release_before_the_last_tensor(server, memory, recorder):
    worker = recorder.start(server.address)
    catalog = scripted_server.publish(TENSORS, memory)
    server.greet()
    server.ask(catalog)
    server.ask(scripted_server.buckets_of(catalog, 4)[0])
    assert failure_of(server, protocol.Release()).stage == "release"
    end_of_failure(server)
    assert "after 4 of 10 tensors" in worker.error(ProtocolError)


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_messages_in_the_wrong_stage(server, memory, recorder, done):
    worker = recorder.start(server.address)
    catalog = scripted_server.publish(TENSORS, memory)
    script = [scripted_server.hello(), catalog, protocol.Bucket(0, 0, 10)]
    for message in script[:done]:
        server.ask(message)
    wrong = protocol.Commit() if done < 3 else scripted_server.hello()
    failure = failure_of(server, wrong)
    assert "in the stage" in failure.message
    end_of_failure(server)
    worker.error(ProtocolError)


def test_a_message_that_is_none(server, recorder):
    worker = recorder.start(server.address)
    server.greet()
    server.send_frames([b'{"type":"halt"}'])
    failure = server.receive()
    assert failure.stage == "catalog"
    assert "'halt'" in failure.message
    end_of_failure(server)
    worker.error(ProtocolError)


def test_a_segment_that_is_not_there(server, memory, recorder):
    worker = recorder.start(server.address)
    catalog = scripted_server.publish(TENSORS, memory)
    Path(catalog.segments[0].path).unlink()
    server.greet()
    assert "cannot be opened" in failure_of(server, catalog).message
    end_of_failure(server)
    worker.error(SegmentError)


def test_a_type_that_torch_lacks(server, memory, recorder):
    worker = recorder.start(server.address)
    catalog = scripted_server.publish([("a", torch.zeros(12, dtype=torch.uint8))], memory)
    row = protocol.TensorRow("a", "F6_E3M2", (16,), 0, 0)
    server.greet()
    failure = failure_of(server, protocol.Catalog(catalog.segments, (row,)))
    assert (failure.stage, recorder.buckets) == ("catalog", [])
    end_of_failure(server)
    worker.error(DTypeError)
