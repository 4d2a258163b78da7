"""Which mappings the transfer engine is told of."""

from __future__ import annotations

import pytest
from checkpoint_engine.transfer_errors import TransferError
from checkpoint_engine.transfer_memory import MappedFiles
from checkpoint_engine.transfer_requests import MapRequest, Range
from transfer_processes import SharedFile

BYTE_COUNT = 10_000


class Registrar:
    def __init__(self, *, rdma):
        self.needs_writable = self.registers_targets = rdma
        self.registered = {}
        self.refuses = False

    def register(self, address, byte_count):
        if self.refuses:
            raise TransferError("refused")
        assert address not in self.registered
        self.registered[address] = byte_count

    def unregister(self, address):
        del self.registered[address]


@pytest.fixture
def file():
    with SharedFile(b"x" * BYTE_COUNT) as file:
        yield file


def request(file, *, writable):
    return MapRequest(1, str(file.path), file.inode, file.byte_count, writable)


@pytest.mark.parametrize(
    ("rdma", "writable", "registered"),
    [(False, False, True), (False, True, False), (True, False, True), (True, True, True)],
)
def test_what_is_registered(file, rdma, writable, registered):
    registrar = Registrar(rdma=rdma)
    files = MappedFiles(registrar)
    address = files.map(request(file, writable=writable))
    assert registrar.registered == ({address: BYTE_COUNT} if registered else {})
    files.unmap(address)
    assert registrar.registered == {}
    with pytest.raises(TransferError, match="nothing is mapped"):
        files.unmap(address)


def test_a_target_needs_no_registration(file):
    registrar = Registrar(rdma=False)
    registrar.refuses = True
    files = MappedFiles(registrar)
    address = files.map(request(file, writable=True))
    whole = Range(address, 1, BYTE_COUNT)
    with files.reading([whole]), pytest.raises(TransferError, match="is being read into"):
        files.unmap(address)
    files.unmap(address)


def test_what_is_refused_is_not_mapped(file):
    registrar = Registrar(rdma=True)
    registrar.refuses = True
    files = MappedFiles(registrar)
    with pytest.raises(TransferError, match="refused"):
        files.map(request(file, writable=True))
    assert files._mappings == {}
