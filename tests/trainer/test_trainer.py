"""Four ranks, each with tensors of its own, update engines whose workers compare every byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launch import WORLD_SIZE

if TYPE_CHECKING:
    from fault_workers import Outcome
    from launch import Ended


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The tensors of all ranks."""
    found: dict[str, Any] = {}
    for part in parts:
        found |= part
    assert len(found) == sum(map(len, parts))
    return found


def check_got(outcomes: list[Outcome], expected: dict[str, Any], workers: int) -> None:
    """Every worker has committed exactly these tensors."""
    assert [outcome.rank for outcome in outcomes] == list(range(workers))
    for outcome in outcomes:
        assert outcome.error is None, outcome.error
        assert outcome.committed
        assert {name: list(found) for name, found in outcome.digests.items()} == expected


def delivered(ended: Ended, place: int = 0) -> dict[str, Any]:
    return merged([values[place] for values in ended.values("delivered")])


def test_two_updates_by_torchrun(launcher, engines):
    engine = engines(WORLD_SIZE)
    run = launcher()
    ended = run.torchrun("twice", WORLD_SIZE, url=engine.url)
    ended.check()
    assert len(engine.updates) == 2
    rounds = [merged([one[place] for one in ended.values("rounds")]) for place in range(2)]
    assert rounds[0] != rounds[1]
    for outcomes, expected in zip(engine.updates, rounds, strict=True):
        check_got(outcomes, expected, WORLD_SIZE)
    for first, second in ended.values("inodes"):
        assert first == second, "the second version has the memory of the first"
    for names in ended.values("names"):
        assert sorted(names) == [str(rank) for rank in range(WORLD_SIZE)]
        assert sorted(name for part in names.values() for name in part) == sorted(rounds[0])
    assert run.folders.contents() == []


def test_default_group_ends_with_the_update(launcher, engines):
    engine = engines(WORLD_SIZE)
    ended = launcher().torchrun("default_group", WORLD_SIZE, url=engine.url)
    ended.check()
    assert ended.values("groups") == [[[6, False], [6, False]]] * WORLD_SIZE
    for place in range(2):
        check_got(engine.updates[place], delivered(ended, place), WORLD_SIZE)


def test_a_subset_of_the_ranks_receives(launcher, engines):
    engine = engines(2)
    variables = [{"CHECKPOINT_ENGINE_CPU_WORKERS": "2"}] * WORLD_SIZE
    ended = launcher().ranks(
        "subset", WORLD_SIZE, variables=variables, url=engine.url, ranks=[2, 3]
    )
    ended.check()
    [outcomes] = engine.updates
    check_got(outcomes, delivered(ended), 2)
    paths = ended.values("paths")
    assert [len(calls) for calls in paths] == [0, 0, 1, 1]
    [seen] = paths[2]
    assert seen == paths[3][0]
    assert [worker for worker, _ in seen] == ["CPU-0", "CPU-1", "CPU-0", "CPU-1"]
    assert [address.split("://")[0] for _, address in seen] == ["", "", "ipc", "ipc"]


def test_two_engines(launcher, engines):
    both = [engines(2, 0), engines(2, 1)]
    variables = [{"CHECKPOINT_ENGINE_CPU_WORKERS": "2"}] * WORLD_SIZE
    ended = launcher().ranks(
        "two_engines", WORLD_SIZE, variables=variables, urls=[engine.url for engine in both]
    )
    ended.check()
    for engine in both:
        [outcomes] = engine.updates
        check_got(outcomes, delivered(ended), 2)
