"""One thread for each key with jobs, which ends with the last one."""

from __future__ import annotations

import threading

import pytest
from checkpoint_engine import transfer_lanes
from checkpoint_engine.transfer_errors import TransferError
from checkpoint_engine.transfer_lanes import Lanes


class Doing:
    """A lane whose jobs go on until they are told to end."""

    def __init__(self, key, log):
        self.key = key
        self.log = log
        self.going_on = []

    @property
    def is_idle(self):
        return not self.going_on

    def begin(self, job):
        self.log.append((self.key, job.name, threading.get_ident()))
        self.going_on.append(job)
        job.begun.set()

    def step(self):
        self.going_on = [job for job in self.going_on if not job.end.wait(0.001)]


class Job:
    def __init__(self, name):
        self.name = name
        self.begun = threading.Event()
        self.end = threading.Event()


@pytest.fixture
def log():
    return []


@pytest.fixture
def lanes(log):
    return Lanes(lambda key: Doing(key, log))


def run(lanes, key, *names):
    jobs = [Job(name) for name in names]
    for job in jobs:
        lanes.run(key, job)
    for job in jobs:
        assert job.begun.wait(10)
    return jobs


def end(lanes, jobs):
    """Ends the jobs, and waits until their threads have."""
    for job in jobs:
        job.end.set()
    for thread in threading.enumerate():
        if thread.name.startswith("Thread-") and "_work" in thread.name:
            thread.join(10)
    assert not lanes._jobs


def test_jobs_of_one_key_begin_in_their_order_and_go_on_together(lanes, log):
    jobs = run(lanes, "a", 1, 2, 3)
    assert [name for _, name, _ in log] == [1, 2, 3]
    assert len({thread for _, _, thread in log}) == 1
    end(lanes, jobs)


def test_keys_go_on_side_by_side(lanes, log):
    jobs = run(lanes, "a", 1) + run(lanes, "b", 2)
    assert len({thread for _, _, thread in log}) == 2
    end(lanes, jobs)


def test_a_key_comes_back(lanes, log):
    for name in range(5):
        end(lanes, run(lanes, "a", name))
    assert [name for _, name, _ in log] == list(range(5))


def test_there_are_only_so_many_keys(lanes, monkeypatch):
    monkeypatch.setattr(transfer_lanes, "LANES_MAX", 2)
    jobs = run(lanes, "a", 1) + run(lanes, "b", 2)
    with pytest.raises(TransferError, match="more than 2 peers"):
        lanes.run("c", Job(3))
    jobs += run(lanes, "b", 4)
    end(lanes, jobs)
    end(lanes, run(lanes, "c", 5))
