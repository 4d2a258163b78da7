"""How reads go through Mooncake: pieces without gaps, a second try, a transfer without an end."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import sys

import pytest
from checkpoint_engine import transfer_agent
from checkpoint_engine.transfer_engine import Engine
from checkpoint_engine.transfer_errors import TransferError, TransferStalledError
from checkpoint_engine.transfer_reads import (
    PIECE_BYTES,
    PIECES_IN_FLIGHT,
    STALL_S,
    Read,
    ReadLane,
    pieces,
)
from checkpoint_engine.transfer_requests import Range, ReadRequest

SUCCEEDED, FAILED, FLYING = 1, -1, 0


class Mooncake:
    """Answers with ``outcomes`` by the number of the batch, with ``other`` where it has none."""

    def __init__(self, outcomes, other=SUCCEEDED):
        self.outcomes = outcomes
        self.other = other
        self.submitted = []
        self.flying = set()
        self.most = 0

    def batch_transfer_async_read(self, session, local, remote, lengths):
        assert session == "host:1"
        number = len(self.submitted) + 1
        self.submitted.append((local[0], remote[0], lengths[0]))
        outcome = self.outcomes.get(number)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome == "refused":
            return 0
        self.flying.add(number)
        self.most = max(self.most, len(self.flying))
        return number

    def transfer_check_status(self, batch):
        assert batch in self.flying, "a batch is freed with its last answer"
        outcome = self.outcomes.get(batch, self.other)
        if outcome != FLYING:
            self.flying.remove(batch)
        return outcome


class Bench:
    """A lane whose time is made of its naps, with what it keeps and the reads that have ended."""

    def __init__(self, outcomes=None, other=SUCCEEDED):
        self.mooncake = Mooncake(outcomes or {}, other)
        engine = Engine.__new__(Engine)
        engine._engine = self.mooncake
        self.now = 100.0
        self.naps = []
        self.kept = []
        self.ended = []
        self.lane = ReadLane("host:1", engine, self.keep, clock=lambda: self.now, sleep=self.sleep)

    @contextlib.contextmanager
    def keep(self, ranges):
        if any(one.local == 0 for one in ranges):
            raise TransferError("not in one mapping")
        self.kept.append(ranges)
        yield
        self.kept = [one for one in self.kept if one is not ranges]

    def sleep(self, seconds):
        self.naps.append(seconds)
        self.now += seconds

    def add(self, *starts, number=1, byte_count=10):
        read = Read(number, tuple(Range(start, start + 1, byte_count) for start in starts))
        self.lane.add(read)
        return read

    def step(self):
        """The reads that have ended, by their ids."""
        ended = self.lane.step()
        self.ended += ended
        for read in ended:
            assert not read.flying_count
            assert not any(one is read.ranges for one in self.kept)
        return [read.id for read in ended]

    def run(self):
        while not self.lane.is_idle:
            self.step()
        assert not self.mooncake.flying
        assert not self.kept
        return [read.id for read in self.ended]

    @property
    def starts(self):
        """Where the pieces begin that were submitted."""
        return [local for local, _, _ in self.mooncake.submitted]


def test_pieces():
    whole = Range(100, 200, 2 * PIECE_BYTES + 1)
    assert pieces(whole) == [
        Range(100, 200, PIECE_BYTES),
        Range(100 + PIECE_BYTES, 200 + PIECE_BYTES, PIECE_BYTES),
        Range(100 + 2 * PIECE_BYTES, 200 + 2 * PIECE_BYTES, 1),
    ]


def test_a_read_has_a_bounded_number_of_pieces_in_flight():
    bench = Bench()
    read = bench.add(*range(10, 30_010, 10))
    assert bench.run() == [1]
    assert read.error is None
    assert bench.mooncake.submitted == [(start, start + 1, 10) for start in range(10, 30_010, 10)]
    assert bench.mooncake.most == PIECES_IN_FLIGHT


def test_pieces_of_the_next_read_follow_without_a_gap():
    bench = Bench(other=FLYING)
    first = list(range(10, 70, 10))
    bench.add(*first, number=1)
    bench.add(500, 510, 520, number=2)
    bench.add(600, number=3)
    assert bench.step() == []
    assert bench.starts == [*first, 500, 510]
    bench.mooncake.outcomes[2] = SUCCEEDED
    assert bench.step() == []
    assert bench.step() == []
    assert bench.starts[8:] == [520]
    bench.mooncake.outcomes[5] = SUCCEEDED
    bench.step()
    bench.step()
    assert bench.starts[9:] == [600]
    assert len(bench.mooncake.flying) == PIECES_IN_FLIGHT


def test_a_read_ends_with_its_own_last_piece():
    bench = Bench({1: FLYING})
    bench.add(10, 20, number=1)
    bench.add(30, number=2)
    bench.add(40, number=3)
    assert bench.step() == [2, 3]
    assert len(bench.kept) == 1
    assert bench.step() == []
    bench.mooncake.outcomes[1] = SUCCEEDED
    assert bench.step() == [1]
    assert bench.lane.is_idle


def test_the_seconds_are_those_from_its_first_piece_on():
    bench = Bench(other=FLYING)
    first = bench.add(*range(10, 90, 10), number=1)
    second = bench.add(500, number=2)
    bench.sleep(3)
    bench.step()
    bench.sleep(5)
    bench.mooncake.other = SUCCEEDED
    assert bench.step() == [1]
    bench.mooncake.other = FLYING
    bench.step()
    bench.sleep(7)
    bench.mooncake.other = SUCCEEDED
    assert bench.step() == [2]
    assert first.seconds == pytest.approx(5, abs=0.01)
    assert second.seconds == pytest.approx(7, abs=0.01)


def test_mappings_are_kept_from_the_first_piece_on():
    bench = Bench(other=FLYING)
    first = bench.add(*range(10, 90, 10), number=1)
    second = bench.add(500, number=2)
    assert bench.kept == []
    bench.step()
    assert bench.kept == [first.ranges]
    bench.mooncake.outcomes[1] = SUCCEEDED
    bench.step()
    bench.step()
    assert bench.kept == [first.ranges, second.ranges]


def test_a_bad_range_is_the_matter_of_its_read_alone():
    bench = Bench()
    bench.add(10, number=1)
    bad = bench.add(20, 0, number=2)
    bench.add(30, number=3)
    bench.run()
    assert {read.id for read in bench.ended if read.error} == {2}
    assert str(bad.error) == "not in one mapping"
    assert bench.starts == [10, 30]


@pytest.mark.parametrize("outcome", [FAILED, "refused"])
def test_what_failed_is_tried_once_more(outcome):
    bench = Bench({2: outcome})
    read = bench.add(10, 20, 30)
    assert bench.run() == [1]
    assert read.error is None
    assert set(bench.starts) == {10, 20, 30}
    assert bench.starts.count(20) == 2
    assert 1.1 <= sum(bench.naps) < 1.2
    assert read.seconds == pytest.approx(sum(bench.naps))


@pytest.mark.parametrize("outcome", [FAILED, "refused"])
def test_nothing_more_of_a_failed_read_is_submitted(outcome):
    bench = Bench({2: outcome}, other=FLYING)
    bench.add(*range(10, 310, 10), number=1)
    bench.add(500, number=2)
    bench.step()
    count = len(bench.starts)
    bench.mooncake.outcomes[1] = SUCCEEDED
    bench.step()
    bench.step()
    assert 500 in bench.starts
    assert len([start for start in bench.starts if start < 500]) == (8 if outcome == FAILED else 2)
    assert count == 8 or outcome == "refused"


@pytest.mark.parametrize("outcome", [FAILED, "refused"])
def test_an_error_comes_when_nothing_is_in_flight_any_more(outcome):
    bench = Bench({1: FLYING, **dict.fromkeys(range(2, 100), outcome)})
    read = bench.add(10, 20, 30)
    for _ in range(10):
        assert bench.step() == []
    assert bench.kept == [read.ranges]
    bench.mooncake.outcomes[1] = SUCCEEDED
    assert bench.run() == [1]
    assert isinstance(read.error, TransferError)
    assert "host:1 failed with 20 bytes left" in str(read.error)
    assert bench.starts.count(20) == 2


def test_other_reads_go_on_while_one_waits_for_its_second_try():
    bench = Bench({1: FAILED})
    bench.add(10, number=1)
    assert bench.step() == []
    for number in range(2, 20):
        bench.add(10 * number, number=number)
        assert bench.step() == [number]
    assert sum(bench.naps) < 0.1
    assert bench.run()[-1] == 1
    assert bench.ended[-1].error is None


def test_a_second_try_is_before_what_waits():
    bench = Bench({1: FAILED, 2: FAILED}, other=FLYING)
    bench.add(10, number=1)
    bench.add(20, number=2)
    bench.step()
    bench.add(*range(100, 400, 10), number=3)
    bench.step()
    bench.sleep(1.1)
    bench.mooncake.outcomes.update({3: SUCCEEDED, 4: SUCCEEDED, 5: SUCCEEDED})
    bench.step()
    bench.step()
    assert bench.starts[10:13] == [10, 20, 180]


def test_a_late_failure_is_not_tried_again():
    bench = Bench({1: FLYING})
    read = bench.add(10)
    bench.step()
    bench.sleep(2)
    bench.mooncake.outcomes[1] = FAILED
    assert bench.step() == [1]
    assert "failed with 10 bytes left" in str(read.error)


def test_an_unexpected_error_of_a_submission_is_its_read_s():
    bench = Bench({1: FLYING, 2: ValueError("odd")})
    read = bench.add(10, 20, 30, number=1)
    bench.add(40, number=2)
    assert bench.step() == [2]
    bench.mooncake.outcomes[1] = FAILED
    assert bench.step() == [1]
    assert repr(read.error) == "ValueError('odd')"
    assert bench.starts == [10, 20, 40]


def test_a_transfer_without_an_end():
    bench = Bench({2: FLYING})
    bench.add(10, 20, number=1)
    bench.add(30, number=2)
    start = bench.now
    with pytest.raises(TransferStalledError, match="the agent ends"):
        bench.run()
    assert STALL_S < bench.now - start < STALL_S + 1
    assert bench.mooncake.flying == {2}
    assert [read.id for read in bench.ended] == [2]


def test_a_stalled_lane_ends_the_agent_without_an_answer(monkeypatch, capfd):
    done = []

    class Output:
        def write(self, line):
            done.append(json.loads(line))

    monkeypatch.setattr(transfer_agent.os, "_exit", sys.exit)
    bench = Bench({2: FLYING})
    lane = transfer_agent._SessionLane(bench.lane, Output())
    for number, start in ((1, 10), (2, 20)):
        lane.begin(ReadRequest(number, "host:1", (Range(start, start + 1, 10),)))
    lane.step()
    bench.sleep(STALL_S + 1)
    assert not lane.is_idle
    with pytest.raises(SystemExit, match="4"):
        lane.step()
    # An answer to the second read would say that nothing is written for it any more.
    assert [one["id"] for one in done] == [1]
    assert done[0]["seconds"] > 0
    assert "made no progress for 60 s" in capfd.readouterr().err


def test_any_progress_of_the_lane_puts_a_stall_off():
    bench = Bench({1: FLYING})
    bench.add(10, number=1)
    for number in range(2, 12):
        bench.add(20, number=number)
        assert bench.step() == [number]
        bench.sleep(STALL_S / 2)
        assert bench.step() == []
    with pytest.raises(TransferStalledError):
        bench.run()


def test_idle_time_is_no_stall():
    bench = Bench()
    for number in range(1, 4):
        bench.sleep(2 * STALL_S)
        bench.add(10, number=number)
        bench.mooncake.outcomes[number] = FLYING
        bench.step()
        bench.mooncake.outcomes[number] = SUCCEEDED
        assert bench.step() == [number]


def test_naps_grow_until_there_is_progress():
    bench = Bench(other=FLYING)
    bench.add(10, 20)
    for _ in range(8):
        bench.step()
    assert bench.naps[0] == 50e-6
    assert all(one <= two <= 2 * one for one, two in itertools.pairwise(bench.naps))
    assert bench.naps[-1] == bench.naps[-2] <= 500e-6
    bench.mooncake.outcomes[1] = SUCCEEDED
    bench.step()
    bench.step()
    assert bench.naps[-1] == 50e-6


@pytest.mark.parametrize("seed", range(20))
def test_every_read_ends_once_whatever_happens(seed):
    generator = random.Random(seed)
    outcomes = (SUCCEEDED, SUCCEEDED, SUCCEEDED, FLYING, FAILED, "refused", ValueError("odd"))
    bench = Bench()
    weights = (60, 0, 0, 20, 10, 8, 2)
    for number in range(1, 2000):
        bench.mooncake.outcomes[number] = generator.choices(outcomes, weights)[0]
    byte_counts = (10, PIECE_BYTES, 3 * PIECE_BYTES + 1)
    for number in range(1, 101):
        starts = [
            generator.choice((0, 7, 8, 9, 10, 11, 12)) for _ in range(generator.randint(1, 9))
        ]
        bench.add(*starts, number=number, byte_count=generator.choice(byte_counts))
        for _ in range(generator.randint(0, 3)):
            bench.step()
            assert len(bench.mooncake.flying) <= PIECES_IN_FLIGHT
        for batch in bench.mooncake.flying:
            if generator.random() < 0.5:
                bench.mooncake.outcomes[batch] = generator.choice((SUCCEEDED, FAILED))
    bench.mooncake.outcomes = {}
    assert sorted(bench.run()) == list(range(1, 101))
    assert any(read.error is None for read in bench.ended)
    assert any(read.error for read in bench.ended)
