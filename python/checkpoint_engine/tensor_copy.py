"""Copies tensors into the memory of a file, by several threads at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    import torch

    from .tensor_layout import Placement

# What one thread copies at once: small enough that all are busy until the end.
PIECE_BYTES = 16 << 20
THREADS_MAX = 32

Piece = tuple["torch.Tensor", "torch.Tensor"]


def thread_count(rank_count: int) -> int:
    """Threads for one of ``rank_count`` processes that share this machine's cores.

    torch's own threads multiply them: every piece is copied by ``torch.get_num_threads`` threads.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) // max(1, rank_count)
    own_threads: int = torch.get_num_threads()
    return max(1, min(cores // own_threads, THREADS_MAX))


def copy_tensors(
    placements: Sequence[Placement],
    memory: torch.Tensor,
    threads: int,
    prepare: Callable[[int], None],
) -> None:
    """Copies every tensor to its place in ``memory``, the bytes of a whole file.

    ``prepare(end)`` is called, on the calling thread and in order, before anything is copied to a
    byte before ``end``. Tensors on GPUs are copied on the current stream of their device, which is
    synchronised; ``memory`` should be pinned then. What a copy raises is raised.
    """
    host = [placement for placement in placements if placement.tensor.device.type == "cpu"]
    other = [placement for placement in placements if placement.tensor.device.type != "cpu"]
    futures: list[Future[None]] = []
    with ThreadPoolExecutor(threads, "checkpoint-engine-copy") as pool:
        try:
            for end, batch in _batches(host, memory):
                prepare(end)
                futures.append(pool.submit(_copy, batch))
            _copy_devices(other, memory, prepare)
        finally:
            wait(futures)
    for future in futures:
        future.result()


def _copy(batch: Iterable[Piece]) -> None:
    for target, source in batch:
        target.copy_(source)


def _batches(
    placements: Sequence[Placement], memory: torch.Tensor
) -> Iterator[tuple[int, list[Piece]]]:
    """Pieces of about ``PIECE_BYTES`` together, with the end of the bytes that they fill."""
    batch: list[Piece] = []
    byte_count, end = 0, 0
    for placement in placements:
        if placement.byte_count == 0:
            continue
        end = placement.offset
        for target, source in _pieces(placement, memory):
            batch.append((target, source))
            byte_count += target.nbytes
            end += target.nbytes
            if byte_count >= PIECE_BYTES:
                yield end, batch
                batch, byte_count = [], 0
    if batch:
        yield end, batch


def _pieces(placement: Placement, memory: torch.Tensor) -> Iterator[Piece]:
    """Pairs of target and source, in the order of their bytes; large tensors in several."""
    import torch

    source = placement.tensor
    if source.is_contiguous() and not source.is_conj() and not source.is_neg():
        source = source.reshape(-1).view(torch.uint8)
        target = memory[placement.offset : placement.offset + placement.byte_count]
    else:
        target = target_of(placement, memory)
    if placement.byte_count <= PIECE_BYTES:
        yield target, source
        return
    rows = source.shape[0] if source.dim() else 1
    step = max(1, rows * PIECE_BYTES // placement.byte_count)
    for row in range(0, rows, step):
        yield target[row : row + step], source[row : row + step]


def target_of(placement: Placement, memory: torch.Tensor) -> torch.Tensor:
    """The place of a tensor, as a tensor of its type and shape."""
    tensor = placement.tensor
    raw = memory[placement.offset : placement.offset + placement.byte_count]
    return raw.view(tensor.dtype).view(tensor.shape)


def _copy_devices(
    placements: Sequence[Placement], memory: torch.Tensor, prepare: Callable[[int], None]
) -> None:
    import torch

    devices = set()
    for placement in placements:
        if placement.byte_count == 0:
            continue
        prepare(placement.offset + placement.byte_count)
        is_cuda = placement.tensor.is_cuda
        target_of(placement, memory).copy_(placement.tensor, non_blocking=is_cuda)
        if is_cuda:
            devices.add(placement.tensor.device)
    for device in devices:
        torch.cuda.synchronize(device)
