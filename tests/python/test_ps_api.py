"""The call of an engine, and the names of ``checkpoint_engine.distributed``."""

from __future__ import annotations

import json
import socket
import socketserver
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torch.distributed as torch_distributed
from checkpoint_engine import distributed
from checkpoint_engine.api import EngineRequestError, request_inference_to_update
from checkpoint_engine.daemon_client import DaemonAddress
from checkpoint_engine.ps_errors import ArgumentError

PATHS = {"CPU-0": "ipc:///tmp/a", "CPU-1": "ipc:///tmp/b"}


class _Engine(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.calls.append((self.path, json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b'{"error": "worker 1 has no weight w"}')

    def log_message(self, format, *args):  # noqa: A002
        """Tests print what matters."""


class _UnixServer(ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)


def serve(server):
    server.calls, server.status = [], 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def engine():
    server = serve(ThreadingHTTPServer(("127.0.0.1", 0), _Engine))
    server.url = f"http://127.0.0.1:{server.server_address[1]}/collective_rpc?x=1"
    yield server
    server.shutdown()
    server.server_close()


def expected(timeout):
    return {"method": "update_weights_from_ipc", "args": [PATHS], "timeout": timeout}


def test_the_call(engine):
    request_inference_to_update(engine.url, PATHS)
    request_inference_to_update(engine.url, PATHS, timeout=7.5)
    assert engine.calls == [
        ("/collective_rpc?x=1", expected(300.0)),
        ("/collective_rpc?x=1", expected(7.5)),
    ]


@pytest.mark.parametrize("url", ["http://localhost/rpc", "/rpc"])
def test_the_call_over_a_unix_socket(url):
    with tempfile.TemporaryDirectory() as folder:
        server = serve(_UnixServer(str(Path(folder) / "e.sock"), _Engine))
        request_inference_to_update(url, PATHS, uds=str(Path(folder) / "e.sock"))
        assert server.calls == [("/rpc", expected(300.0))]
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_what_the_engine_says_is_raised(engine, status):
    engine.status = status
    with pytest.raises(EngineRequestError, match="worker 1 has no weight w") as raised:
        request_inference_to_update(engine.url, PATHS)
    assert raised.value.status == status
    assert engine.url in str(raised.value)


def test_nobody_there(engine):
    engine.shutdown()
    engine.server_close()
    with pytest.raises(EngineRequestError, match="does not answer: ConnectionRefusedError"):
        request_inference_to_update(engine.url, PATHS)


@pytest.mark.parametrize("url", ["", "ftp://h/x", "http:///x", "http://h:x/", "127.0.0.1:80"])
def test_other_urls(url):
    with pytest.raises(ArgumentError, match=r"URL of an engine|impossible port"):
        request_inference_to_update(url, PATHS)


@pytest.mark.parametrize("text", ["", "unix:relative", "http://host", "/path", "https://h:1"])
def test_addresses_of_daemons(text):
    with pytest.raises(ArgumentError, match="unix:/path or http://HOST:PORT"):
        DaemonAddress(text)


def test_collectives():
    names = set(distributed.__all__)
    assert len(names) == 11
    assert not distributed.is_initialized()
    distributed.init_process_group(
        rank=0, world_size=1, store=torch_distributed.HashStore(), backend="gloo"
    )
    try:
        tensor = torch.ones(3)
        distributed.all_reduce(tensor)
        distributed.broadcast(tensor, src=0)
        group = distributed.new_group([0])
        distributed.barrier(group)
        found = [None]
        distributed.all_gather_object(found, {"a": 1}, group)
        assert found == [{"a": 1}]
        assert tensor.tolist() == [1.0, 1.0, 1.0]
        assert isinstance(group, distributed.DistributedProcessGroup)
        distributed.destroy_process_group(group)
        assert distributed.is_initialized()
    finally:
        distributed.destroy_process_group()
    assert not distributed.is_initialized()


def test_backends():
    for name in (None, "", "vllm_nccl", "nccl", "gloo"):
        distributed.use_backend(name)
    with pytest.raises(ArgumentError, match="'vllm_hccl' is not available: it is for NPUs"):
        distributed.use_backend("vllm_hccl")
    with pytest.raises(ValueError, match="'mpi' is not available"):
        distributed.use_backend("mpi")
