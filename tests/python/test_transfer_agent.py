"""The transfer agent as a process: its protocol, real transfers over TCP, and what goes wrong."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import time

import pytest
from transfer_processes import Agent, SharedFile

MIB = 1 << 20
# A peer that ends is noticed at once; one that stands still after mooncake's own time.
QUICK = {"MC_TCP_PROGRESS_TIMEOUT_SEC": "2", "MC_TCP_STATUS_TIMEOUT_SEC": "2"}


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def pair(stack):
    """A source and a reader."""
    agents = [stack.enter_context(Agent("--protocol", "tcp", environment=QUICK)) for _ in range(2)]
    for agent in agents:
        agent.start()
    return agents


def files(stack, byte_count, seed=1):
    """A file of random bytes, and one of zeros of the same size."""
    data = random.Random(seed).randbytes(byte_count)
    return [stack.enter_context(SharedFile(one)) for one in (data, bytes(byte_count))]


def mapped(stack, pair, byte_count):
    """Files as above with their addresses: at the source read-only, at the reader writable."""
    full, empty = files(stack, byte_count)
    remote = pair[0].map(full, writable=False)
    return full, empty, remote, pair[1].map(empty, writable=True)


def test_it_says_that_it_is_ready(stack):
    agent = stack.enter_context(Agent("--protocol", "auto"))
    ready = agent.start()
    assert ready.keys() == {"event", "session", "protocol", "devices", "version"}
    assert ready["session"].startswith("127.0.0.1:")
    if not os.path.isdir("/sys/class/infiniband"):  # noqa: PTH112
        assert (ready["protocol"], ready["devices"]) == ("tcp", [])
    assert ready["version"][0].isdecimal()
    assert agent.ask("ping") == {}
    assert agent.end()[0] == 0


def test_it_reads_everything(stack, pair):
    byte_count = 37 * MIB + 4321
    full, empty, remote, local = mapped(stack, pair, byte_count)
    answer = pair[1].read(pair[0], [[local, remote, byte_count]])
    assert answer.keys() == {"seconds"}
    assert 0 < answer["seconds"] < 30
    assert empty.data() == full.data()


def test_it_reads_many_odd_ranges(stack, pair):
    byte_count = 3 * MIB + 17
    full, empty, remote, local = mapped(stack, pair, byte_count)
    generator = random.Random(2)
    cuts = sorted({0, byte_count, *(generator.randrange(byte_count) for _ in range(8000))})
    spans = list(itertools.pairwise(cuts))
    generator.shuffle(spans)
    kept, left_out = spans[:-1000], spans[-1000:]
    ranges = [[local + start, remote + start, end - start] for start, end in kept]
    assert "seconds" in pair[1].read(pair[0], ranges)
    expected = bytearray(full.data())
    for start, end in left_out:
        expected[start:end] = bytes(end - start)
    assert empty.data() == expected


def test_reads_of_one_session_flow_into_one_another(stack, pair):
    step = 5 * MIB + 3
    full, empty, remote, local = mapped(stack, pair, 20 * step)
    numbers = [
        pair[1].send("read", session=pair[0].session, ranges=[[local + at, remote + at, step]])
        for at in range(0, 20 * step, step)
    ]
    answers = [pair[1].line() for _ in numbers]
    assert sorted(answer["id"] for answer in answers) == numbers
    assert all(0 < answer["seconds"] < 30 for answer in answers)
    assert empty.data() == full.data()


def test_a_failed_read_is_the_only_one(stack, pair):
    full, empty, remote, local = mapped(stack, pair, 16 * MIB)
    pair[1].read(pair[0], [[local, remote, 1]])
    starts = {}
    for at in range(0, 16 * MIB, MIB):
        there = 4096 if at == 3 * MIB else remote + at
        ranges = [[local + at, there, MIB]]
        starts[pair[1].send("read", session=pair[0].session, ranges=ranges)] = at
    answers = [pair[1].line() for _ in starts]
    failed = [starts[answer["id"]] for answer in answers if "error" in answer]
    assert failed == [3 * MIB]
    assert "seconds" in pair[1].read(pair[0], [[local + 3 * MIB, remote + 3 * MIB, MIB]])
    assert empty.data() == full.data()


def test_two_sessions_are_read_side_by_side(stack, pair):
    full, _, remote, local = mapped(stack, pair, 4 * MIB)
    pair[1].read(pair[0], [[local, remote, 1]])
    other = stack.enter_context(Agent("--protocol", "tcp", environment=QUICK))
    other.start()
    there = other.map(full, writable=False)
    pair[0].process.send_signal(signal.SIGSTOP)
    stuck = pair[1].send("read", session=pair[0].session, ranges=[[local, remote, MIB]])
    answer = pair[1].read(other, [[local + MIB, there + MIB, MIB]], 1.5)
    assert "seconds" in answer
    assert pair[1].ask("ping") == {}
    late = pair[1].line(20)
    assert late["id"] == stuck
    assert "failed" in late["error"]


def test_a_map_is_checked(stack, pair, tmp_path):
    (file,) = files(stack, 5000)[:1]
    good = {"path": str(file.path), "inode": file.inode, "bytes": 5000, "writable": True}
    link = tmp_path / "link"
    link.symlink_to(file.path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for values, message in (
        ({"inode": file.inode + 1}, "another file"),
        ({"bytes": 4999}, "another file"),
        ({"bytes": 0}, "'bytes'"),
        ({"path": str(link)}, "cannot be opened"),
        ({"path": str(pipe)}, "not a regular file"),
        ({"path": str(tmp_path)}, "cannot be opened"),
        ({"path": "relative"}, "absolute"),
        ({"path": "/nul\0"}, "absolute"),
        ({"path": str(tmp_path / "none")}, "cannot be opened"),
        ({"writable": 1}, "not a boolean"),
        ({"more": 1}, "unknown key"),
    ):
        assert message in pair[0].ask("map", **{**good, **values})["error"], values
    assert "address" in pair[0].ask("map", **good)


@pytest.mark.parametrize(
    ("line", "number", "message"),
    [
        (b"", None, "not JSON"),
        (b"\xff\xfe", None, "not JSON"),
        (b"[1]", None, "not an object"),
        (b'{"op":"ping"}', None, "lacks the key 'id'"),
        (b'{"id":-1,"op":"ping"}', None, "outside"),
        (b'{"id":7}', 7, "lacks the key 'op'"),
        (b'{"id":7,"op":"sing"}', 7, "allowed: map, unmap"),
        (b'{"id":7,"id":8,"op":"ping"}', None, "twice"),
        (b'{"id":7,"op":"unmap","address":1.5}', None, "integer"),
        (b'{"id":7,"op":"unmap","address":4096}', 7, "nothing is mapped"),
        (b'{"id":7,"op":"read","session":"h:1","ranges":[]}', 7, "ranges"),
        (b'{"id":7,"op":"read","session":"h:1","ranges":[[1,2]]}', 7, "[local, remote, bytes]"),
        (b'{"id":7,"op":"read","session":"h:1","ranges":[[1,2,true]]}', 7, "[local, remote"),
        (b'{"id":7,"op":"read","session":"h:1","ranges":[[1,2,0]]}', 7, "empty"),
        (b'{"id":7,"op":"read","session":"a b:1","ranges":[[1,2,3]]}', 7, "HOST:PORT"),
        (b"[" * 100_000, None, "not JSON"),
    ],
)
def test_bad_lines_are_answered(stack, line, number, message):
    agent = stack.enter_context(Agent("--protocol", "tcp"))
    agent.start()
    agent.send_line(line)
    answer = agent.line()
    assert answer["id"] == number
    assert message in answer["error"]
    assert agent.ask("ping") == {}


def test_a_line_without_end_is_refused(stack):
    agent = stack.enter_context(Agent("--protocol", "tcp"))
    agent.start()
    agent.send_line(b'{"id":1,"op":"' + b"x" * (40 * MIB) + b'"}')
    assert agent.line() == {"id": None, "error": "the line is too long for a request"}
    assert agent.ask("ping") == {}


def test_ranges_outside_of_what_is_mapped(stack, pair):
    full, empty, remote, local = mapped(stack, pair, MIB)
    source, reader = pair
    read_only = reader.map(full, writable=False)
    for ranges, message in (
        ([[local - 1, remote, 10]], "not in one mapping"),
        ([[local, remote, 10], [local + MIB - 9, remote, 10]], "not in one mapping"),
        ([[1, remote, 10]], "not in one mapping"),
        ([[read_only, remote, 10]], "mapped for reading"),
        ([[local, remote + MIB - 9, 10]], "refuses the addresses"),
        ([[local, 4096, 10]], "refuses the addresses"),
    ):
        assert message in reader.read(source, ranges)["error"], ranges
    assert empty.data() == bytes(MIB)
    assert "seconds" in reader.read(source, [[local, remote, MIB]])
    assert empty.data() == full.data()


def test_what_was_unmapped_cannot_be_read(stack, pair):
    full, empty, remote, local = mapped(stack, pair, MIB)
    source, reader = pair
    assert source.ask("unmap", address=remote) == {}
    assert "nothing is mapped" in source.ask("unmap", address=remote)["error"]
    assert "failed" in reader.read(source, [[local, remote, MIB]])["error"]
    again = source.map(full, writable=False)
    assert "seconds" in reader.read(source, [[local, again, MIB]])
    assert reader.ask("unmap", address=local) == {}
    assert "not in one mapping" in reader.read(source, [[local, again, MIB]])["error"]
    assert empty.data() == full.data()


def test_a_mapping_is_kept_while_it_is_read_into(stack, pair):
    _, _, remote, local = mapped(stack, pair, MIB)
    source, reader = pair
    reader.read(source, [[local, remote, 1]])
    source.process.send_signal(signal.SIGSTOP)
    number = reader.send("read", session=source.session, ranges=[[local, remote, MIB]])
    time.sleep(0.3)
    assert "is being read into" in reader.ask("unmap", address=local)["error"]
    assert reader.line(20)["id"] == number
    assert reader.ask("unmap", address=local) == {}


def test_a_peer_that_was_killed(stack, pair):
    _, _, remote, local = mapped(stack, pair, 128 * MIB)
    source, reader = pair
    reader.read(source, [[local, remote, 1]])
    start = time.monotonic()
    reader.send("read", session=source.session, ranges=[[local, remote, 128 * MIB]] * 8)
    time.sleep(0.05)
    source.process.kill()
    assert "failed" in reader.line()["error"]
    assert time.monotonic() - start < 10
    assert "failed" in reader.read(source, [[local, remote, MIB]], 10)["error"]
    assert reader.ask("ping") == {}


def test_a_peer_that_never_was(stack, pair):
    _, _, remote, local = mapped(stack, pair, MIB)
    ranges = [[local, remote, MIB]]
    for session, word in (("127.0.0.1:1", "failed"), ("no-such-host.invalid:15000", "resolved")):
        answer = pair[1].ask("read", 20, session=session, ranges=ranges)
        assert word in answer["error"]


def test_peers_of_both_families(stack):
    """An agent of an IPv4 address reads from one of an IPv6 address, and the other way round."""
    flags = ("--protocol", "tcp", "--host")
    agents = [
        stack.enter_context(Agent(*flags, host, environment=QUICK)) for host in ("127.0.0.1", "::1")
    ]
    for agent in agents:
        agent.start()
    for pair in (agents, agents[::-1]):
        full, empty, remote, local = mapped(stack, pair, MIB)
        assert "seconds" in pair[1].read(pair[0], [[local, remote, MIB]])
        assert empty.data() == full.data()


def test_what_is_read_into_cannot_be_read(stack, pair):
    full, empty, remote, local = mapped(stack, pair, MIB)
    source, reader = pair
    assert "seconds" in reader.read(source, [[local, remote, MIB]])
    other = stack.enter_context(SharedFile(bytes(MIB)))
    there = source.map(other, writable=True)
    assert "refuses the addresses" in source.read(reader, [[there, local, MIB]])["error"]
    assert other.data() == bytes(MIB)
    assert empty.data() == full.data()
    # The same file where it is shared.
    shared = reader.map(empty, writable=False)
    assert "seconds" in source.read(reader, [[there, shared, MIB]])
    assert other.data() == full.data()
    assert "refuses the addresses" in source.read(reader, [[there, local, MIB]])["error"]
    assert reader.ask("unmap", address=shared) == {}
    assert reader.ask("unmap", address=local) == {}


@pytest.mark.parametrize("writable", [False, True])
def test_a_peer_may_not_write(stack, pair, writable):
    full, _ = files(stack, MIB)
    address = pair[0].map(full, writable=writable)
    before = full.data()
    program = (
        "import os\nfrom mooncake.engine import TransferEngine\n"
        "engine = TransferEngine()\n"
        "engine.initialize('127.0.0.1', 'P2PHANDSHAKE', 'tcp', '')\n"
        "memory = engine.allocate_managed_buffer(4096)\n"
        f"code = engine.transfer_sync_write('{pair[0].session}', memory, {address}, 4096)\n"
        "os._exit(7 if code else 8)\n"
    )
    with Agent(program=[sys.executable, "-c", program]) as peer:
        assert peer.process.wait(30) == 7, peer.log
    assert full.data() == before
    assert pair[0].ask("ping") == {}


def test_the_end_of_input_ends_it_while_a_transfer_hangs(stack):
    reader = stack.enter_context(Agent("--protocol", "tcp"))
    source = stack.enter_context(Agent("--protocol", "tcp"))
    for agent in (reader, source):
        agent.start()
    _, _, remote, local = mapped(stack, (source, reader), MIB)
    reader.read(source, [[local, remote, 1]])
    source.process.send_signal(signal.SIGSTOP)
    reader.send("read", session=source.session, ranges=[[local, remote, MIB]])
    time.sleep(0.3)
    status, seconds = reader.end()
    assert status == 0
    assert seconds < 2
    with pytest.raises(EOFError):
        reader.line()


def test_nothing_but_the_protocol_is_on_standard_output(stack):
    agent = stack.enter_context(Agent("--protocol", "tcp", environment={"MC_LOG_LEVEL": "INFO"}))
    agent.start()
    assert agent.ask("ping") == {}
    assert agent.end()[0] == 0
    with pytest.raises(EOFError):
        agent.line()
    assert [value.get("event") for value in agent.received] == ["ready", None]
    assert "TcpTransport" in agent.log


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "ModuleNotFoundError(\"No module named 'mooncake'\", name='mooncake')",
            "is not installed; pip install 'checkpoint-engine-native[p2p]'",
        ),
        (
            "ImportError('libibverbs.so.1: cannot open shared object file: No such file')",
            "apt-get install libibverbs1 libnuma1 libcurl4",
        ),
        (
            "ImportError('libcudart.so.12: cannot open shared object file: No such file')",
            "mooncake-transfer-engine-non-cuda",
        ),
        ("ImportError('undefined symbol')", "cannot be loaded: undefined symbol"),
    ],
)
def test_a_missing_wheel_or_library(stack, error, message):
    program = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.startswith('mooncake'): raise {error}\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "from checkpoint_engine.transfer_agent import main\n"
        "main(sys.argv[1:])\n"
    )
    agent = stack.enter_context(Agent(program=[sys.executable, "-c", program]))
    failed = agent.line()
    assert failed["event"] == "failed"
    assert message in failed["error"]
    assert agent.process.wait(10) == 3


def test_rdma_without_devices(stack, tmp_path):
    agent = stack.enter_context(Agent("--protocol", "rdma", "--device", "no_such_device"))
    failed = agent.line()
    assert failed["event"] == "failed"
    assert "no_such_device" in failed["error"]
    assert agent.process.wait(10) == 3


def test_wrong_flags(stack):
    for flags in (["--protocol", "smoke"], ["--hosts", "a"], ["--host", "a b"]):
        agent = stack.enter_context(Agent(*flags))
        assert agent.process.wait(10) == 2


def test_it_imports_no_engine(stack):
    program = (
        "import sys, checkpoint_engine.transfer_agent\n"
        "from checkpoint_engine.transfer_engine import Engine\n"
        "Engine('127.0.0.1', 'tcp', [])\n"
        "heavy = {'torch', 'numpy', 'vllm', 'zmq'} & set(sys.modules)\n"
        "import os; os._exit(1 if heavy else 0)\n"
    )
    agent = stack.enter_context(Agent(program=[sys.executable, "-c", program]))
    assert agent.process.wait(20) == 0, agent.log
