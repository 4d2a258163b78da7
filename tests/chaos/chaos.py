"""Troubles at random times, over many updates; after each the next update has to be right.

Runs long by hand, and prints what has happened:

    python tests/chaos/chaos.py --updates 500 --seed 7
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "faults"), str(Path(__file__).parent)]

import troubles  # noqa: E402
from rig import Held, Rig, RunningUpdate  # noqa: E402

# The longest that a trouble comes after the begin of its update; updates take some tens of
# milliseconds.
DELAY_S = 0.08
# After so many updates a daemon has made what it makes once: threads, connections, caches.
SETTLED = 15
# What the heap may keep more at one moment than at another.
RESIDENT_MIB_MAX = 12.0


class Chaos:
    """One series of updates with troubles, by the seed that it prints."""

    def __init__(self, rig: Rig, among: tuple[troubles.Trouble, ...]) -> None:
        self.rig = rig
        self.among = among
        self.outcomes: collections.Counter[str] = collections.Counter()

    def round(self) -> None:
        """An update with one trouble, and the one after it."""
        rig = self.rig
        rig.recover()
        name = rig.random.choice(rig.NAMES)
        trouble = rig.random.choice(self.among)
        delay = rig.random.choice((0.0, rig.random.random() * DELAY_S))
        try:
            with RunningUpdate(rig, name) as update:
                time.sleep(delay)
                trouble(rig)
            answer = update.answer
            status = "no answer" if answer is None else str(answer.status)
            self.outcomes[f"{trouble.__name__}: {status}"] += 1
            # Success means every byte, whatever else has happened. A file in use may have been
            # changed after the commit, and what was killed holds nothing.
            if status == "200" and name != "in-place" and trouble not in troubles.KILLS_WORKERS:
                rig.engine.check_holds(rig.originals[name])
            rig.recover()
            rig.check_next_update(rig.random.choice(rig.NAMES))
            rig.check_nothing_left()
        except AssertionError as error:
            error.add_note(f"after {trouble.__name__} at {delay:.3f} s of an update of {name}")
            raise


def run(rounds: int, seed: int, among: tuple[troubles.Trouble, ...] = troubles.ALL) -> Chaos:
    """So many rounds; raises the first thing that is wrong."""
    print(f"chaos: {rounds} rounds, seed {seed}", flush=True)
    with Rig(random.Random(seed)) as rig:
        chaos = Chaos(rig, among)
        for number in range(rounds):
            try:
                chaos.round()
            except AssertionError as error:
                error.add_note(f"round {number} of seed {seed}")
                raise
            if number % 50 == 49:
                print(f"chaos: {number + 1} rounds", flush=True)
        return chaos


def run_flat(updates: int, seed: int) -> tuple[Held, Held]:
    """One daemon through so many updates with troubles: what it holds early and late."""
    with Rig(random.Random(seed)) as rig:
        chaos = Chaos(rig, troubles.OUTLIVED)
        pid = rig.daemon.program.pid
        early = Held.of(pid)
        for number in range(updates):
            chaos.round()
            if number == SETTLED:
                early = Held.of(pid)
        assert rig.daemon.program.pid == pid, "the daemon that began has lived through all"
        return early, Held.of(pid)


def check_flat(early: Held, late: Held) -> None:
    """Nothing has grown."""
    assert late.descriptors <= early.descriptors + 2, (early, late)
    assert late.threads <= early.threads + 2, (early, late)
    assert late.resident_mib <= early.resident_mib + RESIDENT_MIB_MAX, (early, late)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    start = time.monotonic()
    chaos = run(arguments.updates, arguments.seed)
    for outcome, count in sorted(chaos.outcomes.items()):
        print(f"  {count:5}  {outcome}")
    early, late = run_flat(arguments.updates, arguments.seed)
    print(f"one daemon, after {SETTLED} updates: {early}")
    print(f"one daemon, after {arguments.updates} updates: {late}")
    check_flat(early, late)
    print(f"chaos: {2 * arguments.updates} rounds right in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
