"""Transfer agents as processes, and files of shared memory for them."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ANSWER_S_MAX = 30.0


class Agent:
    """A transfer agent on the loopback; ``with`` ends it."""

    def __init__(self, *arguments, environment=None, program=None):
        command = program or [sys.executable, "-m", "checkpoint_engine.transfer_agent"]
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        self._lines = queue.Queue()
        self._errors = []
        self.received = []
        self._threads = [
            threading.Thread(target=self._read_lines, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._number = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(ANSWER_S_MAX)
        for thread in self._threads:
            thread.join(ANSWER_S_MAX)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()

    def _read_lines(self):
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def _read_errors(self):
        self._errors.extend(self.process.stderr)

    @property
    def log(self):
        return b"".join(self._errors).decode(errors="replace")

    def line(self, seconds=ANSWER_S_MAX):
        """The next line of the agent as a value; every one must be a JSON object."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"no line in {seconds} s: {self.log}") from None
        if not line:
            raise EOFError(self.log)
        value = json.loads(line)
        assert isinstance(value, dict), line
        self.received.append(value)
        return value

    def start(self):
        ready = self.line()
        assert ready.get("event") == "ready", ready
        self.session = ready["session"]
        return ready

    def send(self, op, **values):
        """Sends a request; its number."""
        self._number += 1
        self.send_line(json.dumps({"id": self._number, "op": op, **values}).encode())
        return self._number

    def send_line(self, line):
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def ask(self, op, seconds=ANSWER_S_MAX, **values):
        """Sends a request and awaits its answer, the next line."""
        number = self.send(op, **values)
        answer = self.line(seconds)
        assert answer.pop("id") == number
        return answer

    def map(self, file, *, writable):
        values = {"path": str(file.path), "inode": file.inode, "bytes": file.byte_count}
        return self.ask("map", **values, writable=writable)["address"]

    def read(self, peer, ranges, seconds=ANSWER_S_MAX):
        return self.ask("read", seconds, session=peer.session, ranges=ranges)

    def end(self, seconds=10.0):
        """Closes standard input; the exit status and how long it took."""
        start = time.monotonic()
        self.process.stdin.close()
        status = self.process.wait(seconds)
        return status, time.monotonic() - start


class SharedFile:
    """A file in shared memory."""

    def __init__(self, data, folder="/dev/shm"):
        descriptor, name = tempfile.mkstemp(prefix="ce-transfer-", dir=folder)
        os.close(descriptor)
        self.path = Path(name)
        self.path.write_bytes(data)
        self.inode = self.path.stat().st_ino
        self.byte_count = len(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.path.unlink(missing_ok=True)

    def data(self):
        return self.path.read_bytes()
