"""How an agent names its peers to mooncake, which resolves in one address family alone."""

from __future__ import annotations

import socket

import pytest
from checkpoint_engine import transfer_engine
from checkpoint_engine.transfer_engine import reachable
from checkpoint_engine.transfer_errors import TransferError


@pytest.mark.parametrize(
    ("session", "name"),
    [
        ("10.0.0.7:15000", "[::ffff:10.0.0.7]:15000"),
        ("[fd00::7]:15000", "[fd00::7]:15000"),
        ("[fe80::1%eth0]:1", "[fe80::1%eth0]:1"),
    ],
)
def test_with_ipv6_both_families_are_reached(session, name):
    assert reachable(session, uses_ipv6=True) == name


def test_names_are_resolved(monkeypatch):
    def resolve(host, _port, family, *, flags):
        assert (family, flags) == (socket.AF_INET6, socket.AI_V4MAPPED)
        if host != "weights":
            raise socket.gaierror("no such host")
        return [(family, 1, 6, "", ("::ffff:10.0.0.7", 0, 0, 0))]

    monkeypatch.setattr(transfer_engine.socket, "getaddrinfo", resolve)
    assert reachable("weights:15000", uses_ipv6=True) == "[::ffff:10.0.0.7]:15000"
    with pytest.raises(TransferError, match="nobody of nobody:1 cannot be resolved: no such"):
        reachable("nobody:1", uses_ipv6=True)


def test_without_ipv6_the_remedy_is_named():
    assert reachable("10.0.0.7:15000", uses_ipv6=False) == "10.0.0.7:15000"
    assert reachable("weights:15000", uses_ipv6=False) == "weights:15000"
    with pytest.raises(TransferError, match="set --transfer-host to an IPv6 address"):
        reachable("[fd00::7]:15000", uses_ipv6=False)


@pytest.mark.parametrize(
    ("protocol", "host", "has_ipv6", "variable"),
    [
        ("tcp", "10.0.0.7", True, "1"),
        ("tcp", "10.0.0.7", False, None),
        ("tcp", "fd00::7", False, "1"),
        ("rdma", "10.0.0.7", True, None),
        ("rdma", "fd00::7", True, "1"),
    ],
)
def test_the_family_of_the_agent(monkeypatch, protocol, host, has_ipv6, variable):
    environment = {}
    monkeypatch.setattr(transfer_engine.os, "environ", environment)
    monkeypatch.setattr(transfer_engine, "has_ipv6", lambda: has_ipv6)
    transfer_engine.set_environment(protocol, host)
    assert environment.get("MC_USE_IPV6") == variable
    # Whoever has set it knows better.
    environment["MC_USE_IPV6"] = "0"
    transfer_engine.set_environment(protocol, host)
    assert environment["MC_USE_IPV6"] == "0"
