"""``torchrun`` starts one process for each GPU; the program does the work once on each host.

What a rank starts has the rank's variables as well, and is no rank itself.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import daemon
import pytest

TORCHRUN = Path(sys.executable).with_name("torchrun")
RUN_S_MAX = 90.0


# What a process of rank 3 has from torchrun.
PLACE = {
    "RANK": "3",
    "LOCAL_RANK": "3",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "8",
    "GROUP_RANK": "0",
    "GROUP_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "a-run-of-these-tests",
}
# The second of two nodes with 8 and 4 processes.
UNEVEN = PLACE | {
    "RANK": "8",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "12",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
}
# Runs what follows as a child, as a trainer's rank does.
RANK_SCRIPT = """
import os, subprocess, sys
if os.environ["RANK"] in sys.argv[1].split(","):
    sys.exit(subprocess.run(sys.argv[2:]).returncode)
"""


def torchrun(
    count: int, *arguments: str, program: tuple[str, ...] = (str(daemon.BINARY),)
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(str(TORCHRUN), "--no-python", "--standalone", "--nproc-per-node", str(count)),
            *program,
            *arguments,
        ],
        env=daemon.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )


@pytest.mark.parametrize("count", [1, 3])
def test_one_of_the_processes_updates(in_memory, engine, folders, count):
    ended = torchrun(count, *daemon.update_arguments(in_memory, engine.url, folders))
    assert ended.returncode == 0, ended.stderr
    assert len(engine.updates) == 1
    assert ended.stdout.count("succeeded") == 1
    # Everyone says what it has from where.
    assert ended.stderr.count("under torchrun, local rank ") == (count if count > 1 else 0)
    assert ended.stderr.count("waits for local rank 0") == count - 1
    assert folders.contents() == []


def test_all_end_with_the_failure_of_the_first(engine, folders, tmp_path):
    start = time.monotonic()
    missing = tmp_path / "missing"
    ended = torchrun(3, *daemon.update_arguments(missing, engine.url, folders))
    assert ended.returncode != 0
    assert str(missing) in ended.stderr
    assert time.monotonic() - start < RUN_S_MAX / 2
    assert engine.updates == []


def ranks_that_run(ranks: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A trainer of three ranks, some of which run the program."""
    program = (sys.executable, "-c", RANK_SCRIPT, ranks, str(daemon.BINARY))
    return torchrun(3, *arguments, program=program)


def test_a_child_of_a_rank_has_to_say_what_it_is(in_memory, engine, folders):
    arguments = daemon.update_arguments(in_memory, engine.url, folders)
    ended = ranks_that_run("2", *arguments)
    assert ended.returncode != 0
    for word in ("RANK=2", "--torchrun", "--no-torchrun", "so has the parent, process"):
        assert word in ended.stderr, ended.stderr
    assert engine.updates == []


def test_a_child_of_a_rank_that_is_a_command_of_its_own(in_memory, engine, folders):
    arguments = daemon.update_arguments(in_memory, engine.url, folders)
    ended = ranks_that_run("2", *arguments, "--no-torchrun")
    assert ended.returncode == 0, ended.stderr
    assert "under torchrun" not in ended.stderr
    assert ended.stdout.count("succeeded") == 1
    assert len(engine.updates) == 1


def test_children_of_all_ranks_share_the_work(in_memory, engine, folders):
    arguments = daemon.update_arguments(in_memory, engine.url, folders)
    ended = ranks_that_run("0,1,2", *arguments, "--torchrun")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("succeeded") == 1
    assert len(engine.updates) == 1


def test_nobody_waits_for_a_rank_that_is_not_there(in_memory, engine, folders):
    arguments = daemon.update_arguments(in_memory, engine.url, folders)
    ended = daemon.run(*arguments, **PLACE)
    ended.check_failure("local rank 3 waits for local rank 0", "--no-torchrun", within=20)
    assert engine.updates == []


def test_the_others_learn_that_the_first_was_killed(samples, engine, folders):
    engine.script.health = "hang"
    arguments = daemon.update_arguments(samples.first, engine.url, folders)
    first = daemon.Program(*arguments, **{**PLACE, "RANK": "0", "LOCAL_RANK": "0"})
    assert engine.hung.wait(20)
    other = daemon.Program(*arguments, **PLACE)
    first.kill()
    other.wait(20).check_failure("local rank 0", "without telling how")
    # What the killed one has left goes with the next one.
    engine.reset()
    ended = daemon.run(*arguments)
    assert ended.code == 0, ended.stderr


def test_another_launcher_has_to_say_that_it_is_one(in_memory, engine, folders):
    arguments = daemon.update_arguments(in_memory, engine.url, folders)
    place = {name: text for name, text in PLACE.items() if not name.startswith("TORCHELASTIC")}
    ended = daemon.run(*arguments, **place)
    assert ended.code == 2, ended.stderr
    assert "TORCHELASTIC_RUN_ID" in ended.stderr
    assert "--torchrun" in ended.stderr
    assert engine.updates == []


def test_a_single_rank_is_like_none(in_memory, engine, folders):
    place = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "1")
    place |= dict.fromkeys(("RANK", "LOCAL_RANK"), "0")
    arguments = daemon.update_arguments(in_memory, engine.url, folders)
    ended = daemon.run(*arguments, **(PLACE | place))
    assert ended.code == 0, ended.stderr
    assert len(engine.updates) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"RANK": "8"}, ["RANK", "'8'", "0 to 7"]),
        ({"RANK": "three"}, ["RANK", "'three'"]),
        ({"LOCAL_RANK": "8"}, ["LOCAL_RANK", "'8'"]),
        ({"WORLD_SIZE": "0"}, ["WORLD_SIZE", "'0'"]),
        ({"WORLD_SIZE": "9223372036854775807"}, ["WORLD_SIZE"]),
        ({"LOCAL_WORLD_SIZE": "9"}, ["LOCAL_WORLD_SIZE", "1 to 8"]),
        ({"MASTER_PORT": "65536"}, ["MASTER_PORT", "'65536'"]),
        ({"GROUP_RANK": "1"}, ["GROUP_RANK", "0 to 0"]),
        ({"GROUP_RANK": ""}, ["GROUP_RANK", "missing"]),
        ({"GROUP_WORLD_SIZE": "2"}, ["GROUP_WORLD_SIZE 2", "contradict"]),
        # The first of two nodes with 8 and 4 processes, and nobody says which node it is.
        (
            {"WORLD_SIZE": "12", "GROUP_RANK": "", "GROUP_WORLD_SIZE": ""},
            ["WORLD_SIZE is 12", "LOCAL_WORLD_SIZE 8", "GROUP_RANK and GROUP_WORLD_SIZE"],
        ),
    ],
)
def test_variables_that_contradict_each_other(in_memory, engine, folders, changes, words):
    arguments = daemon.update_arguments(in_memory, engine.url, folders)
    ended = daemon.run(*arguments, **(PLACE | changes))
    assert ended.code == 2, ended.stderr
    for word in [*words, "--no-torchrun"]:
        assert word in ended.stderr, ended.stderr
    assert engine.updates == []
    # None of them matters to who leaves them out.
    ended = daemon.run(*arguments, **(PLACE | changes), CHECKPOINT_ENGINE_TORCHRUN="no")
    assert ended.code == 0, ended.stderr


def test_uneven_nodes_are_those_that_the_launcher_says(in_memory, engine, folders):
    arguments = daemon.update_arguments(in_memory, engine.url, folders)
    ended = daemon.run(*arguments, **UNEVEN)
    # Engines on the CPU are updated by each host alone; the message may not blame a flag.
    ended.check_failure("this is host 1 of 2", "127.0.0.1:29501", "GPUs only", "'--no-torchrun'")
    assert engine.updates == []
    ended = daemon.run(*arguments, "--no-torchrun", **UNEVEN)
    assert ended.code == 0, ended.stderr


def test_a_daemon_says_what_it_has_from_torchrun(folders):
    daemon_arguments = ["serve", "--listen", "127.0.0.1:0", "--no-token", *folders.flags]
    ended = daemon.run(*daemon_arguments, **UNEVEN)
    ended.check_failure("RANK=8", "--no-torchrun", "GPUs only")
