"""How reads go through Mooncake: pieces, a second try, and a transfer without an end."""

from __future__ import annotations

import pytest
from checkpoint_engine import transfer_engine
from checkpoint_engine.transfer_engine import PIECE_BYTES, PIECES_IN_FLIGHT, Engine, pieces
from checkpoint_engine.transfer_errors import TransferError, TransferStalledError
from checkpoint_engine.transfer_requests import Range


class Mooncake:
    """Answers with ``outcomes`` by the number of the batch; with success where they are silent."""

    def __init__(self, outcomes):
        self.outcomes = outcomes
        self.submitted = []
        self.flying = set()
        self.most = 0

    def batch_transfer_async_read(self, session, local, remote, lengths):
        number = len(self.submitted) + 1
        self.submitted.append((local[0], remote[0], lengths[0]))
        if self.outcomes.get(number) == "refused":
            return 0
        self.flying.add(number)
        self.most = max(self.most, len(self.flying))
        return number

    def transfer_check_status(self, batch):
        assert batch in self.flying, "a batch is freed with its last answer"
        outcome = self.outcomes.get(batch, 1)
        if outcome != 0:
            self.flying.remove(batch)
        return outcome


@pytest.fixture
def engine_of(monkeypatch):
    monkeypatch.setattr(transfer_engine, "_RETRY_PAUSE_S", 0.0)
    monkeypatch.setattr(transfer_engine, "STALL_S", 0.05)

    def make(outcomes):
        engine = Engine.__new__(Engine)
        engine._engine = Mooncake(outcomes)
        return engine, engine._engine

    return make


def test_pieces():
    whole = Range(100, 200, 2 * PIECE_BYTES + 1)
    assert pieces(whole) == [
        Range(100, 200, PIECE_BYTES),
        Range(100 + PIECE_BYTES, 200 + PIECE_BYTES, PIECE_BYTES),
        Range(100 + 2 * PIECE_BYTES, 200 + 2 * PIECE_BYTES, 1),
    ]


def test_a_read_has_a_bounded_number_of_pieces_in_flight(engine_of):
    engine, mooncake = engine_of({})
    ranges = [Range(10 * index, 5 + 10 * index, 10) for index in range(3000)]
    engine.read("host:1", ranges)
    assert mooncake.submitted == [(one.local, one.remote, one.byte_count) for one in ranges]
    assert mooncake.most == PIECES_IN_FLIGHT


@pytest.mark.parametrize("outcome", [-1, "refused"])
def test_what_failed_is_tried_once_more(engine_of, outcome):
    engine, mooncake = engine_of({2: outcome})
    engine.read("host:1", [Range(1, 2, 3), Range(4, 5, 6), Range(7, 8, 9)])
    assert set(mooncake.submitted) == {(1, 2, 3), (4, 5, 6), (7, 8, 9)}
    assert mooncake.submitted.count((4, 5, 6)) == 2
    assert not mooncake.flying


@pytest.mark.parametrize("outcome", [-1, "refused"])
def test_an_error_comes_when_nothing_is_in_flight_any_more(engine_of, outcome):
    engine, mooncake = engine_of(dict.fromkeys(range(2, 100), outcome))
    with pytest.raises(TransferError, match=r"host:1 failed with 15 bytes left"):
        engine.read("host:1", [Range(1, 2, 3), Range(4, 5, 6), Range(7, 8, 9)])
    assert not mooncake.flying


def test_a_transfer_without_an_end(engine_of):
    engine, mooncake = engine_of({2: 0})
    with pytest.raises(TransferStalledError, match="the agent ends"):
        engine.read("host:1", [Range(1, 2, 3), Range(4, 5, 6)])
    assert mooncake.flying == {2}
