"""Writes seeds for the fuzz targets, a folder each: small texts that are right, so that mutations of them get far."""

from __future__ import annotations

import json
import pathlib
import sys

DTYPES = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "U8": 8,
    "F8_E4M3": 8,
    "BF16": 16,
    "F32": 32,
    "C64": 64,
}
LARGEST = (1 << 63) - 1


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def headers() -> dict[str, bytes]:
    """A byte with the length of the data, then a header."""
    samples: dict[str, tuple[int, dict]] = {
        "empty": (0, {}),
        "metadata": (0, {"__metadata__": {"format": "pt"}}),
    }
    for name, bits in DTYPES.items():
        length = 4 * bits // 8
        one = {"dtype": name, "shape": [2, 2], "data_offsets": [0, length]}
        two = {"dtype": name, "shape": [4], "data_offsets": [length, 2 * length]}
        none = {"dtype": name, "shape": [0, 7], "data_offsets": [0, 0]}
        samples[name] = (2 * length, {"a.weight": one, "b.weight": two, "empty": none})
    return {
        name: bytes([length]) + compact(header)
        for name, (length, header) in samples.items()
    }


def requests() -> dict[str, bytes]:
    instance = {
        "update_url": "http://h:1/collective_rpc",
        "uds": "/e.sock",
        "workers": 2,
        "ranks": [0, 1],
    }
    return {
        "register": compact({"files": ["/m/model.safetensors", "/n"], "consume": True}),
        "update": compact(
            {
                "instances": [instance],
                "timeout": 1.5,
                "pause": "keep",
                "wake": True,
                "engine": "vllm",
                "weight_version": "v1",
                "engine_protocol": "vllm-native",
                "sender_gpu": 3,
                "wait": False,
            }
        ),
        "one": compact(
            {
                "update_url": "http://h",
                "inference_group_ranks": [0, LARGEST],
                "ranks": [0],
            }
        ),
        "pull": compact(
            {
                "sources": [{"url": "http://h:2", "token": "t"}],
                "remote_name": "m",
                "stall_timeout": 20,
                "keep": "auto",
                "wait": False,
            }
        ),
        "open": compact(
            {"workers": ["CPU-0", "CPU-1"], "calls": 2, "timeout": 9, "alone": True}
        ),
    }


ROWS = [
    ["a.weight", "BF16", [2, 3], 0, 0],
    ["b", "F4", [4], 0, 12],
    ["c", "U8", [], 1, LARGEST],
]


def worker() -> dict[str, bytes]:
    hello = {
        "type": "hello",
        "version": 1,
        "worker": "CPU-0",
        "pid": 1,
        "software": "s",
        "credits": 4,
    }
    segment = {"path": "/dev/shm/s", "inode": 5, "bytes": 64, "data_offset": 8}
    catalog = {"type": "catalog", "tensors": 2, "bytes": 14, "segments": [segment]}
    return {
        "hello": compact(hello),
        "loaded": compact(
            {"type": "loaded", "index": 3, "bytes": 16, "micros": (1 << 53) - 1}
        ),
        "committed": compact({"type": "committed", "micros": 9}),
        "error": compact(
            {"type": "error", "stage": "bucket", "message": "m", "traceback": "t"}
        ),
        "server": compact(
            {
                "type": "hello",
                "protocol": "checkpoint-engine",
                "versions": [1],
                "update": "u",
                "checkpoint": "c",
                "memory": "host",
                "deadline_ms": 1000,
            }
        ),
        "bucket": compact({"type": "bucket", "index": 0, "first": 0, "count": 2}),
        "catalog": compact(catalog) + b"\0" + compact(ROWS[:2]),
    }


def leases() -> dict[str, bytes]:
    endpoint = {"session": "h:1", "addresses": [4096, 1 << 62]}
    state = {
        "expires_in": 10,
        "active": True,
        "readers": ["http://h:3"],
        "arrived": [[0, 5], [7, LARGEST]],
        "endpoints": [endpoint],
    }
    lease = {
        "version": 1,
        "lease": "lease-1-a",
        "incarnation": "i",
        "digest": "d",
        "chunk_bytes": 1 << 20,
        "shard_bytes": [1 << 21, 1 << 56],
    }
    return {
        "lease": compact({**lease, **state, "arrived": None}),
        "state": compact(state),
    }


def metas() -> dict[str, bytes]:
    tensor = {
        "name": "t",
        "dtype": "torch.uint8",
        "shape": [(1 << 60) - 1],
        "aligned_size": (1 << 60) - 1,
    }
    small = {"name": "s", "dtype": "torch.bfloat16", "shape": [2], "aligned_size": 256}
    rank = {
        "p2p_store_addr": "h:9",
        "rdma_device": "",
        "memory_buffer_metas_list": [{"metas": [small], "ptr": 4096, "size": 256}],
        "checkpoint_engine": {"url": "http://h:1", "checkpoint": "m"},
    }
    large = {
        **rank,
        "memory_buffer_metas_list": [
            {"metas": [tensor], "ptr": 1, "size": (1 << 60) - 1}
        ],
    }
    return {
        "small": compact({"0": rank, "1": rank}),
        "large": compact({str(i): large for i in range(9)}),
    }


def hosts() -> dict[str, bytes]:
    messages = [
        {
            "type": "hello",
            "protocol": "checkpoint-engine-hosts",
            "version": 2,
            "host": 1,
            "hosts": 2,
            "name": "n",
            "token": "t",
        },
        {"type": "welcome", "names": ["a", "b"]},
        {"type": "refused", "reason": "r"},
        {"type": "withdraw", "key": "k", "reason": None},
        {"type": "left", "key": "k", "host": 1, "reason": "r"},
        {"type": "put", "key": "k"},
        {"type": "all", "key": "k", "lengths": [1, 2]},
        {"type": "end", "scope": "s", "host": 1, "reason": "r"},
        {"type": "ping"},
    ]
    seeds = {}
    for message in messages:
        header = compact(message)
        payload = b"\0abc" if message["type"] in ("put", "all") else b""
        seeds[str(message["type"])] = header + payload
    seeds["offer"] = compact(
        {
            "nonce": "1",
            "digest": "d",
            "union": "",
            "gpus": 8,
            "free": LARGEST,
            "rails": "00ff",
        }
    )
    return seeds


SEEDS = {
    "header": headers,
    "json": lambda: {
        **requests(),
        "deep": b"[[[[{}]]]]",
        "text": b'["\\ud83d\\ude00", -0.5e3, null]',
    },
    "index": lambda: {
        "index": compact(
            {"metadata": {"total_size": 4}, "weight_map": {"a": "m.safetensors"}}
        )
    },
    "requests": requests,
    "worker": worker,
    "catalog": lambda: {"rows": compact(ROWS), "two": compact(ROWS[:2])},
    "lease": leases,
    "metas": metas,
    "hosts": hosts,
    "agent": lambda: {
        "ready": compact(
            {
                "event": "ready",
                "session": "h:1",
                "protocol": "tcp",
                "devices": ["d"],
                "version": "v",
            }
        ),
        "failed": compact({"event": "failed", "error": "e"}),
        "answer": compact({"id": 1, "address": 4096, "seconds": 0.5}),
        "refusal": compact({"id": None, "error": "e"}),
    },
    "url": lambda: {
        str(number): text
        for number, text in enumerate(
            (
                b"http://127.0.0.1:8000/collective_rpc",
                b"https://h/",
                b"http://[::1]:65535",
                b"http://h:65536",
            )
        )
    },
}


def main() -> None:
    root = pathlib.Path(sys.argv[1])
    for target, seeds in SEEDS.items():
        folder = root / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in seeds().items():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
