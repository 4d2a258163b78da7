"""Sessions with peers of another kind, and several with one context."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import scripted_server
import torch
import zmq
from checkpoint_engine import channel
from checkpoint_engine.errors import KnownProtocolError, ServerLostError
from checkpoint_engine.worker import update_weights_from_ipc

TENSORS = [(f"layer.{place}.weight", torch.full((4, 5), float(place))) for place in range(10)]


def test_nobody_listens(recorder, monkeypatch):
    monkeypatch.setattr(channel, "CONNECT_TIMEOUT_S", 0.3)
    start = time.monotonic()
    worker = recorder.start("ipc://@checkpoint-engine-test-nobody")
    assert "no server answers" in worker.error(ServerLostError)
    assert 0.25 < time.monotonic() - start < 3


def test_an_update_that_is_over_is_noticed_at_once(tmp_path, recorder, monkeypatch):
    """Its socket is gone, or nobody listens on it any more."""
    monkeypatch.setattr(channel, "CONNECT_TIMEOUT_S", 60)
    left = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(left))
    for path in (tmp_path / "gone", left):
        start = time.monotonic()
        worker = recorder.start(f"ipc://{path}")
        assert "the update ended" in worker.error(ServerLostError)
        assert time.monotonic() - start < 5


def test_another_users_socket(tmp_path, recorder, monkeypatch):
    def refused(_self, _path):
        raise PermissionError

    monkeypatch.setattr(channel, "CONNECT_TIMEOUT_S", 60)
    monkeypatch.setattr(channel.socket.socket, "connect", refused)
    worker = recorder.start(f"ipc://{tmp_path}/gone")
    assert "as one user" in worker.error(ServerLostError)


@pytest.mark.parametrize("address", ["", "nonsense", "ftp://host"])
def test_addresses_that_are_none(recorder, address):
    assert "cannot connect" in recorder.start(address).error(ServerLostError)


@pytest.mark.parametrize("first", [b"\x80\x04N.", b"\x80\x05\x95"])
def test_the_pickle_based_protocol_is_named(server, recorder, first):
    worker = recorder.start(server.address)
    server.send_frames([first])
    answer = server.receive_frames()
    assert len(answer) == 1
    assert b"PyPI package" in answer[0]
    assert "PyPI package checkpoint-engine" in worker.error(KnownProtocolError)


def test_the_context_can_be_used_again(memory, recorder):
    """A worker keeps one context for all updates; a failed one must not spoil it."""
    context = zmq.Context()
    with pytest.raises(ServerLostError):
        update_weights_from_ipc(context, "nonsense", run=recorder.run, worker_id="CPU-0")
    for _ in range(3):
        with scripted_server.Server() as server:
            catalog = scripted_server.publish(TENSORS, memory)
            thread = threading.Thread(target=server.deliver, args=(catalog,))
            thread.start()
            update_weights_from_ipc(context, server.address, run=recorder.run, worker_id="CPU-0")
            thread.join()
    context.term()
    assert len(recorder.loaded) == len(TENSORS)
