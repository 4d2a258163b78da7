"""Steps of all ranks, with threads as ranks: values, failures, deadlines; what the dead leave."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch.distributed as torch_distributed
from checkpoint_engine import private_directory, rank_identity
from checkpoint_engine.private_directory import PrivateDirectory
from checkpoint_engine.ps_errors import RankDeadlineError, RankFailedError, RankLostError
from checkpoint_engine.rank_identity import RankIdentity
from checkpoint_engine.rank_store import RankStore
from checkpoint_engine.rank_values import read_values, write_value
from checkpoint_engine.update_step import check_receivers

COUNT = 3
TIMEOUT_S = 10.0


def new_store():
    return torch_distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def ranks():
    """Three ranks of one store, each with a connection of its own."""
    server = new_store()
    stores = [server] + [
        torch_distributed.TCPStore("127.0.0.1", server.port, wait_for_workers=False)
        for _ in range(COUNT - 1)
    ]
    return together(lambda rank: RankStore(stores[rank], rank, COUNT, TIMEOUT_S))


def together(body, count=COUNT):
    """What ``body(rank)`` returns or raises, by rank."""
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(body, rank) for rank in range(count)]
    return [future.exception() or future.result() for future in futures]


@pytest.mark.parametrize("size", [0, 60_000, 70_000, 20_000_000])
def test_values_of_any_size(size):
    store = new_store()
    text = secrets.token_hex(size // 2)
    keys = write_value(store, "key", {"text": text, "unicode": "名"})
    assert read_values(store, ["key"]) == [{"text": text, "unicode": "名"}]
    assert all(len(store.get(key)) < 8 << 20 for key in keys)
    for key in keys:
        assert store.delete_key(key)


def test_every_rank_gets_what_all_have_given(ranks):
    def body(rank):
        found = []
        for _ in range(40):  # more steps than are kept
            with ranks[rank].step("count", ("first", "second"), TIMEOUT_S) as step:
                values = step.exchange("first", [rank, len(found)])
                assert values == [[other, len(found)] for other in range(COUNT)]
                found.append(step.exchange("second", rank * 10))
        return found

    assert together(body) == [[[0, 10, 20]] * 40] * COUNT
    assert ranks[0].store.num_keys() < 40 * COUNT * 2


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_failure_reaches_all_at_once_and_the_next_step_works(ranks, stage):
    def body(rank):
        try:
            with ranks[rank].step("load", ("a", "b", "c"), TIMEOUT_S) as step:
                for place, name in enumerate("abc"):
                    if (rank, place) == (1, stage):
                        raise LookupError("no such thing")
                    step.exchange(name, None)
        except (LookupError, RankFailedError) as error:
            with ranks[rank].step("next", ("only",), TIMEOUT_S) as step:
                assert step.exchange("only", rank) == [0, 1, 2]
            return error
        return None

    start = time.monotonic()
    found = together(body)
    assert time.monotonic() - start < 2
    assert isinstance(found[1], LookupError)
    for rank in (0, 2):
        assert isinstance(found[rank], RankFailedError), found[rank]
        assert found[rank].rank == 1
        assert "rank 1 (pid" in str(found[rank])
        assert "LookupError: no such thing" in str(found[rank])


def test_a_rank_that_does_not_come(ranks):
    def body(rank):
        if rank == 2:
            return
        with ranks[rank].step("load", ("only",), 0.5) as step:
            step.exchange("only", None)

    first, second, _ = together(body)
    for error in (first, second):
        assert isinstance(error, RankDeadlineError)
        assert isinstance(error, TimeoutError)
        assert "rank 2 of 3 did not come to load in time" in str(error)


def test_a_rank_whose_process_ends_while_others_wait(ranks):
    process = subprocess.Popen(["sleep", "60"])
    _, start = rank_identity.process_state(process.pid)
    values = ranks[0].identities[2].values() | {"pid": process.pid, "start": start}
    for rank in ranks[:2]:
        rank.peers = [*rank.peers[:1], RankIdentity(**values)]
    waiting = threading.Event()

    def body(rank):
        if rank == 2:
            assert waiting.wait(TIMEOUT_S)
            process.kill()  # stays a zombie, as the process of a trainer does
            return
        with ranks[rank].step("load", ("only",), 60) as step:
            waiting.set()
            step.exchange("only", None)

    began = time.monotonic()
    first, second, _ = together(body)
    process.wait()
    assert time.monotonic() - began < 5
    for error in (first, second):
        assert isinstance(error, RankLostError)
        assert error.rank == 2
        assert f"rank 2 (pid {process.pid} on " in str(error)
        assert "has ended during load" in str(error)


def test_who_has_ended():
    own = RankIdentity.of_this_process(0, 1)
    assert not own.has_ended(own)
    later = RankIdentity(**(own.values() | {"start": own.start + 1}))
    assert later.has_ended(own), "another process has its number now"
    elsewhere = RankIdentity(**(later.values() | {"processes": "another machine"}))
    assert not elsewhere.has_ended(own), "nothing is known of other machines"


def test_receivers():
    check_receivers(None, 2)
    check_receivers([1, 0], 2)
    for wrong in ([2], [-1], [0, 0]):
        with pytest.raises(ValueError, match="ranks"):
            check_receivers(wrong, 2)


_HOLDER = """
import sys, time
from pathlib import Path
from checkpoint_engine.private_directory import PrivateDirectory
held = PrivateDirectory(Path(sys.argv[1]), "held-")
(held.path / "content").write_text("x")
print(held.path, flush=True)
time.sleep(60)
"""


def test_directories_of_killed_processes_are_removed(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    left = Path(process.stdout.readline().strip())
    mine = PrivateDirectory(tmp_path, "held-")
    assert left.is_dir(), "its process lives"
    other = tmp_path / "held-file"
    other.write_text("not a directory")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    private_directory.sweep(tmp_path, "held-")
    assert not left.exists()
    assert mine.path.is_dir()
    assert other.exists()
    assert os.stat(mine.path).st_mode & 0o777 == 0o700  # noqa: PTH116
    mine.close()
    assert not mine.path.exists()
