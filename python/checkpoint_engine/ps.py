"""``ParameterServer``: what the processes of a trainer call to update inference engines.

Each rank registers what it has with the daemon of its host, files or tensors. ``gather_metas`` puts
the parts together, ``update`` delivers them. The data goes through the daemon; ranks exchange small
values only, through a ``TCPStore`` of their own.
"""

from __future__ import annotations

import os
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .api import request_inference_to_update
from .composition import Compositions
from .data_types import (
    BucketRange,
    DataToGather,
    H2DBucket,
    MemoryBuffer,
    MemoryBufferMetaList,
    MemoryBufferMetas,
    ParameterMeta,
)
from .errors import UpdateError
from .host_daemon import HostDaemon, join_daemon
from .ps_errors import (
    ArgumentError,
    ParameterServerError,
    RankDeadlineError,
    RankError,
    RankUpdateError,
)
from .rank_checkpoints import RankCheckpoints
from .rank_pulls import RankPulls
from .rank_store import RankStore
from .update_step import GRACE_S, STAGES, UpdateStep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from typing_extensions import Self

__all__ = [
    "BucketRange",
    "DataToGather",
    "H2DBucket",
    "MemoryBuffer",
    "MemoryBufferMetaList",
    "MemoryBufferMetas",
    "ParameterMeta",
    "ParameterServer",
    "ParameterServerError",
    "UpdateError",
    "request_inference_to_update",
]

CPU_WORKERS_VARIABLE = "CHECKPOINT_ENGINE_CPU_WORKERS"
START_TIMEOUT_VARIABLE = "CHECKPOINT_ENGINE_START_TIMEOUT"
START_S_MAX = 600.0
GATHER_S_MAX = 600.0


class ParameterServer:
    """One rank of a world that updates inference engines together.

    Every rank makes one. ``gather_metas``, ``update``, ``init_process_group`` and
    ``store_based_barrier`` are for all ranks at once, in the same order; the others are local. When
    one rank fails in a call of all, it fails on every rank with an exception that names that rank,
    and the next call works. When the process of a rank has ended, every call of all fails with
    ``RankLostError``, or the ``UpdateError`` that tells of it.

    ``close`` gives everything back; it is called at the end of the process, or use ``with``.
    """

    def __init__(
        self,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        auto_pg: bool = True,
        gpu_count: int | None = None,
        mem_fraction: float | None = None,
        master_addr: str | None = None,
        master_port: int | None = None,
    ) -> None:
        """Meets the other ranks and finds or starts the daemon of this host.

        ``rank``, ``world_size`` and ``master_addr`` are by default those of the environment (RANK,
        WORLD_SIZE, MASTER_ADDR). ``master_port`` is the port of the ranks' store, by default
        MASTER_PORT + 1. With ``auto_pg``, ``update`` destroys the process group that
        ``init_process_group`` has made. On GPUs the rank's device becomes ``rank % gpu_count``;
        ``gpu_count`` is by default the number of GPUs that it sees. ``mem_fraction`` is checked but
        has no meaning here: ``CHECKPOINT_ENGINE_BUCKET_SIZE`` bounds the daemon's memory on GPUs.

        Raises ``ArgumentError``, ``DaemonError`` and ``RankError``.
        """
        self._rank = _number("rank", rank, "RANK", least=0)
        self._world_size = _number("world_size", world_size, "WORLD_SIZE", least=1)
        if mem_fraction is not None and not 0 < mem_fraction <= 1:
            raise ArgumentError(f"mem_fraction is {mem_fraction}; it has to be above 0, at most 1")
        self._auto_pg = auto_pg
        self._owns_group = False
        self._group_count = 0
        self._metas: dict[int, MemoryBufferMetaList] = {}
        self._gpu_count = _choose_device(self._rank, gpu_count)
        address = master_addr or os.environ.get("MASTER_ADDR")
        if not address:
            raise ArgumentError("master_addr is not given, and MASTER_ADDR is not set")
        timeout = _start_timeout()
        self._store = _open_store(address, master_port, self._rank, self._world_size, timeout)
        self._ranks = RankStore(self._store, self._rank, self._world_size, timeout)
        device = "cuda" if self._gpu_count else "host"
        try:
            self._daemon = join_daemon(self._ranks, device, address, timeout)
        except BaseException:
            self._ranks.close()  # the others read why from this process, if it is rank 0
            raise
        self._local = _local_ranks(self._ranks)
        self._checkpoints = RankCheckpoints(self._daemon, self._rank, len(self._local))
        self._compositions = Compositions(self._ranks, self._daemon, self._checkpoints)
        self._pulls = RankPulls(self._daemon, self._rank, is_leader=self._compositions.is_leader)
        self._finalizer = weakref.finalize(
            self, _close, os.getpid(), self._ranks, (self._pulls, self._checkpoints), self._daemon
        )

    def register_checkpoint(
        self,
        checkpoint_name: str,
        *,
        files: Sequence[str] | None = None,
        named_tensors: Mapping[str, torch.Tensor] | None = None,
        use_shared_memory_pool: bool = False,  # noqa: ARG002
        use_inplace_pin_memory: bool = True,  # noqa: ARG002
    ) -> None:
        """Registers what this rank has of a checkpoint: files, tensors, both or nothing. Local.

        ``files`` are safetensors files, or directories of them. Those in shared memory are used in
        place: they are never removed, and must not change until they are unregistered. Tensors are
        copied, from any device, into one file in shared memory; they may change when this returns.
        The memory of an unregistered checkpoint is used again by the next one of equal names, types
        and shapes, with and without ``use_shared_memory_pool``; ``use_inplace_pin_memory`` has no
        meaning either, as the daemon pins what it delivers to GPUs.

        Raises ``CheckpointNameError`` when the name is taken, ``FileKindError``,
        ``TensorTypeError``, ``TensorNameError``, ``SharedMemoryError``, and ``DaemonError``.
        Nothing is registered then.
        """
        self._check_open()
        self._checkpoints.register(checkpoint_name, files or (), named_tensors or {})

    def unregister_checkpoint(self, checkpoint_name: str, force: bool = False) -> None:  # noqa: FBT001, FBT002
        """Forgets what this rank has of a checkpoint, or what was read from other hosts. Local.

        Its memory is kept for the next one of equal layout; with ``force`` all that is kept is
        given back. An unknown name is only logged. Raises ``DaemonRefusedError`` while an update
        delivers it.
        """
        self._check_open()
        was_pulled = self._pulls.forget(checkpoint_name, force=force)
        if not was_pulled or self._checkpoints.knows(checkpoint_name):
            self._checkpoints.unregister(checkpoint_name, force=force)
        self._compositions.forget(checkpoint_name)

    def gather_metas(self, checkpoint_name: str) -> None:
        """Puts together what all ranks have registered as ``checkpoint_name``. For all ranks.

        Raises ``DaemonRefusedError`` when two ranks have the same tensor (``RankFailedError`` on
        the ranks that only hear of it), and ``RankError``.
        """
        self._check_open()
        title = f"gather_metas of {checkpoint_name}"
        with self._ranks.step(title, ("parts", "metas"), GATHER_S_MAX) as step:
            self._pulls.forget(checkpoint_name)
            self._metas = self._compositions.gather(step, checkpoint_name)
            self._pulls.unload()

    def get_metas(self) -> dict[int, MemoryBufferMetaList]:
        """What ``gather_metas`` has found or ``load_metas`` was given, by rank."""
        return self._metas

    def load_metas(self, metas: dict[int, MemoryBufferMetaList]) -> None:
        """Takes the metas of other hosts, the same on every rank. Local.

        An ``update`` of a name that no rank has registered reads what they describe from those
        hosts, the first time after this call. The daemons of those hosts have to be reachable:
        see ``CHECKPOINT_ENGINE_LISTEN``. Metas that name no daemon, as PyPI's package writes them,
        lead to the memory of its processes: nobody notices when that changes while it is read.
        Raises ``MetasError`` and ``DaemonError``.
        """
        self._check_open()
        self._pulls.load(metas)
        self._metas = metas

    def init_process_group(self, *, timeout: timedelta = timedelta(minutes=10)) -> None:
        """Makes torch's default process group, with NCCL on GPUs and gloo elsewhere. For all ranks.

        One that is there already is kept, and left alone by ``update``.
        """
        from . import distributed

        self._check_open()
        self._group_count += 1
        if distributed.is_initialized():
            return
        import torch.distributed as torch_distributed

        distributed.init_process_group(
            rank=self._rank,
            world_size=self._world_size,
            store=torch_distributed.PrefixStore(f"group-{self._group_count}", self._store),
            backend="nccl" if self._gpu_count else "gloo",
            timeout=timeout,
        )
        self._owns_group = True

    def store_based_barrier(self, timeout: timedelta = timedelta(minutes=5)) -> None:
        """Returns when all ranks have called it. Needs no process group. Raises ``RankError``."""
        self._check_open()
        with self._ranks.step("store_based_barrier", ("barrier",), timeout.total_seconds()) as step:
            step.exchange("barrier", None)

    def update(
        self,
        checkpoint_name: str,
        req_func: Callable[[list[tuple[str, str]]], object],
        *,
        timeout: timedelta = timedelta(minutes=10),
        ranks: list[int] | None = None,
    ) -> None:
        """Delivers a checkpoint, gathered or of loaded metas, to the engines. For all ranks.

        ``req_func`` is called on every rank of ``ranks`` (all, if ``None`` or empty), on a thread
        of its own, with ``(worker, address)`` of all ranks, by rank; the address is empty for those
        that receive nothing. It has to make the engines of its rank call
        ``update_weights_from_ipc``, or return at once where another rank does that for it. It is
        done when all workers have committed and every ``req_func`` has returned.

        On GPUs of several hosts the engines of all hosts commit together, and ``ranks`` have to
        name a rank of each host. Only what loaded metas describe can go to some of the hosts; each
        of those commits for itself then.

        Raises ``UpdateError`` on every rank when anything fails, ``ArgumentError`` for impossible
        ``ranks``, ``MetasError`` for loaded metas that cannot be read. After a failure engines may
        hold a mixture of weights until an update succeeds.
        """
        self._check_open()
        seconds = timeout.total_seconds()
        title = f"update of {checkpoint_name}"
        try:
            with self._ranks.step(title, STAGES, seconds + GRACE_S) as step:
                UpdateStep(self._ranks, self._daemon, self._compositions, self._pulls, step).run(
                    checkpoint_name, self._worker(), ranks or None, req_func, seconds
                )
        except ArgumentError:
            raise
        except ParameterServerError as error:
            rank = error.rank if isinstance(error, RankError) else None
            raise RankUpdateError(str(error), rank) from error
        finally:
            self._destroy_group()

    def close(self) -> None:
        """Removes what this rank has in shared memory; the leader of a host stops its daemon."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise ParameterServerError("this ParameterServer is closed; make a new one")

    def _destroy_group(self) -> None:
        from . import distributed

        if self._auto_pg and self._owns_group and distributed.is_initialized():
            distributed.destroy_process_group()
        self._owns_group = self._owns_group and not self._auto_pg

    def _worker(self) -> str:
        """What the engine's worker on this rank's device is called."""
        if self._gpu_count:
            import torch

            uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
            return f"GPU-{uuid}"
        count = _number(CPU_WORKERS_VARIABLE, None, CPU_WORKERS_VARIABLE, 1, len(self._local))
        return f"CPU-{self._local.index(self._rank) % count}"


def _close(
    pid: int, ranks: RankStore, held: tuple[RankPulls, RankCheckpoints], daemon: HostDaemon
) -> None:
    if os.getpid() != pid:
        return  # a child of a fork owns nothing of it
    try:
        for one in held:
            one.close()
        ranks.close()
    finally:
        daemon.close()


def _number(
    what: str, given: int | None, variable: str, least: int, default: int | None = None
) -> int:
    """``given``, else the value of ``variable``. Raises ``ArgumentError``."""
    text: Any = given if given is not None else os.environ.get(variable) or default
    if text is None:
        raise ArgumentError(f"{what} is not given, and {variable} is not set")
    try:
        number = int(text)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{what} is {text!r}, which is no number") from error
    if number < least:
        raise ArgumentError(f"{what} is {number}; it has to be at least {least}")
    return number


def _start_timeout() -> float:
    seconds = _number(START_TIMEOUT_VARIABLE, None, START_TIMEOUT_VARIABLE, 1, int(START_S_MAX))
    return float(seconds)


def _choose_device(rank: int, gpu_count: int | None) -> int:
    """Makes the rank's GPU the current one; how many there are for it, 0 without CUDA."""
    import torch

    if gpu_count is not None and gpu_count < 1:
        raise ArgumentError(f"gpu_count is {gpu_count}; it has to be at least 1")
    if not torch.cuda.is_available():
        return 0
    seen: int = torch.cuda.device_count()
    if gpu_count is not None and gpu_count > seen:
        raise ArgumentError(f"gpu_count is {gpu_count}, but this process sees {seen} GPUs")
    count = gpu_count or seen
    torch.cuda.set_device(rank % count)
    return count


def _open_store(address: str, port: int | None, rank: int, world_size: int, timeout: float) -> Any:
    import torch.distributed as torch_distributed

    number = _number("master_port", port, "MASTER_PORT", least=1)
    number += 1 if port is None else 0
    try:
        return torch_distributed.TCPStore(
            address,
            number,
            world_size,
            is_master=rank == 0,
            timeout=timedelta(seconds=timeout),
            wait_for_workers=False,
        )
    except (RuntimeError, ValueError) as error:
        remedy = ""
        if "EADDRINUSE" in str(error):
            remedy = (
                "; MASTER_PORT + 1 has to be free as well: give torchrun a --master-port below the "
                "ports of outgoing connections (/proc/sys/net/ipv4/ip_local_port_range), 29500 for "
                "example"
            )
        what = f"rank {rank} cannot open the store of all ranks at {address}:{number}: {error}"
        raise RankDeadlineError(0, what + remedy) from error


def _local_ranks(ranks: RankStore) -> list[int]:
    return [one.rank for one in ranks.identities if one.host == ranks.identity.host]
