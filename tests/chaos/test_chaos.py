"""Troubles at random times: a short run with a new seed each time; ``chaos.py`` runs long."""

from __future__ import annotations

import random

from chaos import SETTLED, check_flat, run, run_flat


def test_the_next_update_is_right() -> None:
    run(rounds=40, seed=random.randrange(1 << 32))


def test_a_daemon_that_lives_holds_no_more() -> None:
    early, late = run_flat(updates=SETTLED + 20, seed=random.randrange(1 << 32))
    check_flat(early, late)
