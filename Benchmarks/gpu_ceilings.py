"""What the GPUs of this machine can do, as torch sees it: the ceilings of ``gpu.py``, as JSON."""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

BLOCK_BYTES = 1 << 30
ROUNDS = 9


def _median_gbs(copy: Callable[[], object], device: int) -> float:
    """GB/s of a copy of one block, after a first one that does not count."""
    import torch

    samples = []
    for number in range(ROUNDS + 1):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        copy()
        torch.cuda.synchronize(device)
        if number:
            samples.append(time.perf_counter() - start)
    return BLOCK_BYTES / statistics.median(samples) / 1e9


def _all_at_once_gbs(pairs: list[tuple[torch.Tensor, torch.Tensor]], devices: list[int]) -> float:
    """GB/s of all GPUs together, one thread each; the slowest ends a round."""
    import torch

    barrier = threading.Barrier(len(pairs) + 1)

    def work(target: torch.Tensor, source: torch.Tensor, device: int) -> None:
        torch.cuda.set_device(device)
        for _ in range(ROUNDS + 1):
            barrier.wait(60)
            target.copy_(source, non_blocking=True)
            torch.cuda.synchronize(device)
            barrier.wait(60)

    threads = [
        threading.Thread(target=work, args=(*pair, device), daemon=True)
        for pair, device in zip(pairs, devices, strict=True)
    ]
    for thread in threads:
        thread.start()
    samples = []
    for number in range(ROUNDS + 1):
        barrier.wait(60)
        start = time.perf_counter()
        barrier.wait(60)
        if number:
            samples.append(time.perf_counter() - start)
    for thread in threads:
        thread.join(60)
    return len(pairs) * BLOCK_BYTES / statistics.median(samples) / 1e9


def measure(devices: list[int]) -> dict[str, object]:
    """Copies of 1 GiB: from pinned memory, inside a GPU, between GPUs."""
    import torch

    hosts, targets, others = [], [], []
    for device in devices:
        hosts.append(torch.empty(BLOCK_BYTES, dtype=torch.uint8, pin_memory=True).fill_(device))
        targets.append(torch.empty(BLOCK_BYTES, dtype=torch.uint8, device=f"cuda:{device}"))
        others.append(torch.empty_like(targets[-1]))
    pairs = list(zip(targets, hosts, strict=True))
    alone = [
        _median_gbs(lambda t=target, h=host: t.copy_(h, non_blocking=True), device)
        for (target, host), device in zip(pairs, devices, strict=True)
    ]
    inside = [
        _median_gbs(lambda o=other, t=target: o.copy_(t, non_blocking=True), device)
        for other, target, device in zip(others, targets, devices, strict=True)
    ]
    peers = {}
    for index, device in enumerate(devices[1:], start=1):
        peers[f"{devices[0]}->{device}"] = _median_gbs(
            lambda i=index: others[i].copy_(targets[0], non_blocking=True), devices[0]
        )
    return {
        "h2d_alone_gbs": alone,
        "h2d_together_gbs": _all_at_once_gbs(pairs, devices),
        "device_copy_gbs": inside,
        "peer_copy_gbs": peers,
        "names": [torch.cuda.get_device_name(device) for device in devices],
        "torch": torch.__version__,
    }


def main() -> None:
    """Prints the ceilings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", required=True, help="numbers of GPUs: 0,1")
    print(json.dumps(measure([int(text) for text in parser.parse_args().devices.split(",")])))


if __name__ == "__main__":
    main()
