"""What goes wrong between four ranks: every living rank is told, and the next call works."""

from __future__ import annotations

import pytest
from launch import WORLD_SIZE
from test_trainer import check_got, delivered

# How long after its cause a failure may reach a rank.
PROMPT_S = 10.0
# Each with the number of exceptions that every rank reports, and each followed by a good update.
FAULTS = {
    "same_names": 1,
    "req_func_raises": 1,
    "no_engine": 1,
    "engine_does_not_call": 1,
    "not_gathered": 4,
    "daemon_killed_in_update": 1,
}


@pytest.fixture(scope="module")
def faults(launcher, engines):
    """One run through all faults; what the ranks report, and the engine."""
    engine = engines(WORLD_SIZE)
    run = launcher()
    scenarios = ",".join(f"{name},deliver" for name in FAULTS)
    ended = run.ranks(scenarios, WORLD_SIZE, url=engine.url)
    ended.check()
    return ended, list(engine.updates), run


def errors_of(faults, name, place=0):
    names = list(FAULTS)
    before = sum(FAULTS[other] for other in names[: names.index(name)])
    found = faults[0].errors(before + place)
    assert sorted(found) == list(range(WORLD_SIZE))
    return found


def check_update_error(found, *words):
    for rank, (kinds, text, seconds, _) in found.items():
        assert "UpdateError" in kinds, (rank, kinds)
        for word in words:
            assert word in text, f"rank {rank}: {word!r} is missing:\n{text}"
        assert seconds < PROMPT_S, (rank, seconds)


def test_after_every_fault_an_update_works(faults):
    ended, updates, run = faults
    assert len(updates) == len(FAULTS)
    for place, outcomes in enumerate(updates):
        check_got(outcomes, delivered(ended, place), WORLD_SIZE)
    assert run.folders.contents() == []


def test_two_ranks_have_the_same_tensor(faults):
    for rank, (kinds, text, seconds, _) in errors_of(faults, "same_names").items():
        assert ("DaemonRefusedError" if rank == 0 else "RankFailedError") in kinds
        assert "both step.rank1 and step.rank3 have the tensor layers.1." in text
        assert seconds < PROMPT_S


def test_req_func_raises(faults):
    found = errors_of(faults, "req_func_raises")
    words = "req_func of rank 1 raised LookupError: rank 1 does not find its engine"
    check_update_error(found, words, "engine_failed")
    assert found[1][3] == "LookupError"


def test_engine_is_not_there(faults):
    found = errors_of(faults, "no_engine")
    check_update_error(found, "req_func of rank 0 raised EngineRequestError", "127.0.0.1:9")
    assert found[0][3] == "EngineRequestError"


def test_workers_do_not_come(faults):
    check_update_error(errors_of(faults, "engine_does_not_call"), "CPU-")


def test_update_without_gathering(faults):
    check_update_error(errors_of(faults, "not_gathered", 0), "gather_metas('step')")


def test_impossible_ranks(faults):
    for place, words in ((1, "7 in `ranks` is no rank of a world of 4"), (2, "twice in `ranks`")):
        for kinds, text, _, _ in errors_of(faults, "not_gathered", place).values():
            assert "ArgumentError" in kinds
            assert words in text
    for kinds, text, _, _ in errors_of(faults, "not_gathered", 3).values():
        assert {"ArgumentError", "UpdateError"} & set(kinds)
        assert "disagree on `ranks`" in text


def test_daemon_killed_in_update(faults):
    check_update_error(errors_of(faults, "daemon_killed_in_update"), "does not answer", "ps.sock")


def test_daemon_killed_before_update(launcher, engines):
    """A new daemon is started and told everything; the update succeeds as if nothing had been."""
    engine = engines(WORLD_SIZE)
    run = launcher()
    ended = run.ranks("daemon_killed_between", WORLD_SIZE, url=engine.url)
    ended.check()
    [outcomes] = engine.updates
    check_got(outcomes, delivered(ended), WORLD_SIZE)
    assert run.folders.contents() == []


def test_one_rank_has_an_unknown_type(launcher, engines):
    engine = engines(WORLD_SIZE)
    ended = launcher().ranks("one_cannot_register", WORLD_SIZE, url=engine.url)
    ended.check()
    errors = [values[0] for values in ended.values("errors")]
    kinds, text, *_ = errors.pop(2)
    assert "TensorTypeError" in kinds
    assert "TypeError" in kinds
    assert "odd" in text
    assert "complex128" in text
    assert errors == [None] * 3
    [outcomes] = engine.updates
    check_got(outcomes, delivered(ended), WORLD_SIZE)


def test_rank_killed_in_register(launcher):
    ended = launcher().ranks("die_in_register", WORLD_SIZE)
    ended.check(2)
    for place in range(2):
        for kinds, text, seconds, _ in ended.errors(place).values():
            assert "RankLostError" in kinds
            assert "rank 2 (pid " in text
            assert "has ended during gather_metas of step" in text
            assert seconds < PROMPT_S


@pytest.mark.parametrize("victim", [0, 3])
def test_rank_killed_in_update(launcher, victim):
    """Rank 0 serves the store and leads the host, rank 3 does nothing special."""
    run = launcher()
    ended = run.ranks("die_in_update", WORLD_SIZE, victim=victim)
    survivors = [rank for rank in range(WORLD_SIZE) if rank != victim]
    assert ended.codes[victim] == -9
    found = ended.errors(0)
    assert sorted(found) == survivors
    check_update_error(found, f"rank {victim}")
    for kinds, text, seconds, _ in ended.errors(1).values():
        assert "RankLostError" in kinds
        assert f"rank {victim}" in text
        assert seconds < PROMPT_S
    if victim == 0:
        # The daemon ends with the rank that it belongs to, a moment later, and its update before.
        for rank in survivors:
            failure = ended.reports[rank].get("failure", "DaemonLostError")
            assert failure.startswith(("DaemonLostError", "DaemonRefusedError")), failure
    else:
        ended.check(victim)
        assert ended.values("registers") == [True] * 3


def test_what_a_killed_rank_left_is_removed_by_the_others(launcher):
    run = launcher()
    run.ranks("die_in_update", 2, victim=1).check(1)
    assert run.folders.contents() == []
