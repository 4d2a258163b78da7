"""Ranks that do not fit together, and daemons that cannot be used: told on every rank, in time."""

from __future__ import annotations

import http.server
import json
import threading

import pytest
from checkpoint_engine.rank_identity import has_ended
from daemon import wait_until

PROMPT_S = 15.0
SHORT = {"CHECKPOINT_ENGINE_START_TIMEOUT": "3"}


def check_failed(ended, kind, *words):
    assert all(code == 1 for code in ended.codes), ended.codes
    for failure, seconds in zip(ended.values("failure"), ended.values("seconds"), strict=True):
        assert failure.startswith(kind), failure
        for word in words:
            assert word in failure
        assert seconds < PROMPT_S


def test_two_processes_are_one_rank(launcher):
    ended = launcher().ranks("idle", 3, variables=[{}, {}, {"RANK": "1"}])
    assert all(code == 1 for code in ended.codes)
    for failure in ended.values("failure"):
        assert failure.startswith("ArgumentError: two processes are rank 1")


def test_ranks_disagree_on_the_world_size(launcher):
    ended = launcher().ranks("idle", 2, variables=[{}, {"WORLD_SIZE": "3"}])
    check_failed(ended, "ArgumentError", "disagree on the world size", "0: 2, 1: 3")


def test_a_rank_beyond_the_world(launcher):
    ended = launcher().ranks("idle", 2, variables=[{}, {"RANK": "2"}])
    assert ended.codes == [1, 1]
    assert "rank 2 is impossible in a world of 2" in ended.values("failure")[0]


def test_a_rank_does_not_come(launcher):
    ended = launcher().ranks("idle", 2, variables=[{**SHORT, "WORLD_SIZE": "3"}] * 2)
    check_failed(ended, "RankDeadlineError", "rank 2 of 3 did not come to meeting")


def test_the_program_is_not_there(launcher, tmp_path):
    missing = {"CHECKPOINT_ENGINE_BIN": str(tmp_path / "missing")}
    run = launcher()
    ended = run.ranks("idle", 2, variables=[missing, missing])
    check_failed(ended, "", str(tmp_path / "missing"))
    first, second = ended.values("failure")
    assert first.startswith("DaemonStartError")
    assert second.startswith("RankFailedError")
    assert "rank 0 (pid " in second
    assert run.folders.contents() == []


def test_the_program_does_not_start(launcher, tmp_path):
    broken = tmp_path / "checkpoint-engine"
    broken.write_text("#!/bin/sh\necho it is Friday >&2\nexit 3\n")
    broken.chmod(0o700)
    ended = launcher().ranks("idle", 2, variables=[{"CHECKPOINT_ENGINE_BIN": str(broken)}] * 2)
    for failure in ended.values("failure"):
        assert "ended with code 3 instead of starting; it printed:\nit is Friday" in failure


class _OldDaemon(http.server.BaseHTTPRequestHandler):
    """Answers as a daemon of another version does."""

    def do_GET(self) -> None:
        content = json.dumps({"name": "checkpoint-engine", "version": "0.0.9"}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Tests print what matters."""


@pytest.fixture
def old_daemon():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _OldDaemon)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_daemon_of_another_version(launcher, old_daemon):
    variables = [{"CHECKPOINT_ENGINE_DAEMON": old_daemon}] * 2
    ended = launcher().ranks("idle", 2, variables=variables)
    for failure, kind in zip(
        ended.values("failure"), ("DaemonVersionError", "RankFailedError"), strict=True
    ):
        assert failure.startswith(kind)
        assert "has the version 0.0.9, this package has " in failure
        assert old_daemon in failure


def test_a_named_daemon_that_is_not_there(launcher, tmp_path):
    address = f"unix:{tmp_path}/nobody.sock"
    ended = launcher().ranks("idle", 2, variables=[{"CHECKPOINT_ENGINE_DAEMON": address}] * 2)
    check_failed(ended, "", address)
    assert ended.values("failure")[0].startswith("DaemonLostError")


def test_no_master(launcher):
    ended = launcher().ranks("idle", 1, variables=[{"MASTER_ADDR": ""}])
    check_failed(ended, "ArgumentError", "MASTER_ADDR is not set")


def test_daemon_ends_with_a_killed_leader(launcher):
    """All ranks are killed at once; the daemon ends by itself."""
    run = launcher()
    ended = run.ranks("kill_everybody", 2)
    assert ended.codes == [-9, -9]
    [path] = run.folders.runtime.rglob("ps.pid")
    pid, start = map(int, path.read_text().split())
    wait_until(lambda: has_ended(pid, start), "the daemon has ended")
    left = [path for path in run.folders.contents() if path.endswith(".safetensors")]
    assert len(left) == 2, "the tensors of both ranks"
    launcher().ranks("idle", 1).check()
    assert run.folders.contents() == []
