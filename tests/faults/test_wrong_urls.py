"""URLs that are none: refused at once wherever they can be said, and nothing is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from daemon import run, update_arguments

if TYPE_CHECKING:
    from conftest import Samples
    from daemon import Daemon, Folders

WRONG = [
    ("http://127.0.0.1:65536", 'the port \\"65536\\"'),
    ("http://127.0.0.1:18446744073709551616", "the port"),
    ("http://127.0.0.1:0", 'the port \\"0\\"'),
    ("http://127.0.0.1:8a", 'the port \\"8a\\"'),
    ("http://[::1", "bracket"),
    ("http://[::1]:99999", 'the port \\"99999\\"'),
    ("http://[fe80::1%eth0]:80", "zone id"),
    ("http://:8000", "the host is missing"),
    ("http://a b:80", "other than letters"),
    ("http://a\u0007:80", "other than letters"),
    ("http://é:80", "other than letters"),
    ("http://127.1:80", "ends in a number"),
    ("ftp://h", "http://"),
]
BODIES: list[tuple[str, Any]] = [
    ("/v1/checkpoints/step/update", lambda url: {"update_url": url, "timeout": 3}),
    ("/v1/checkpoints/step/update", lambda url: {"instances": [{"update_url": url}]}),
    ("/v1/checkpoints/other/pull", lambda url: {"sources": [{"url": url}]}),
    ("/v1/checkpoints/step/leases", lambda url: {"reader": url}),
    (
        "/v1/metas",
        lambda url: {
            "0": {
                "p2p_store_addr": None,
                "memory_buffer_metas_list": [],
                "rdma_device": "",
                "checkpoint_engine": {"url": url, "checkpoint": "c"},
            }
        },
    ),
]


@pytest.mark.parametrize(("url", "words"), WRONG)
def test_requests(daemon: Daemon, samples: Samples, url: str, words: str) -> None:
    assert daemon.register("step", samples.first).status == 200
    for path, body in BODIES:
        answer = daemon.request("POST", path, body(url))
        answer.check_failure(400, "invalid_argument", words.replace("\\", ""), within=2)
    assert daemon.request("GET", "/v1/healthz").status == 200


# One for each part of a URL: each is said in five places, by a process each.
@pytest.mark.parametrize(("url", "words"), [WRONG[0], WRONG[4], WRONG[9]])
def test_flags(folders: Folders, samples: Samples, url: str, words: str) -> None:
    engine = "http://127.0.0.1:9"
    join = ("join", "--checkpoint-name", "step", "--endpoint", engine)
    for arguments in [
        update_arguments(samples.first, url, folders),
        update_arguments(samples.first, engine, folders, "--advertise-url", url),
        (*join, "--source", url),
        (*join, "--metas-url", url),
        (*join, "--source", engine, "--advertise-url", url),
    ]:
        ended = run(*arguments)
        assert ended.code == 2, ended
        assert words.replace("\\", "") in ended.stderr, ended


@pytest.mark.parametrize("address", ["127.0.0.1:65536", "127.0.0.1:0", "127.1:80", "h:8a"])
def test_rendezvous(folders: Folders, samples: Samples, address: str) -> None:
    flags = ("--rendezvous", address, "--hosts", "2", "--host-rank", "0")
    ended = run(*update_arguments(samples.first, "http://127.0.0.1:9", folders, *flags))
    assert ended.code == 2, ended
    assert "--rendezvous" in ended.stderr
