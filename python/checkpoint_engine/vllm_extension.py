"""vLLM's worker extension; ``checkpoint_engine.worker`` exports it for ``--worker-extension-cls``.

vLLM adds the class to the bases of its own worker, which therefore must have no attribute of the
same name; what the extension needs beside its one method are functions of this package.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import zmq

from .errors import WorkerIdError
from .failures import summary

_logger = logging.getLogger(__name__)

# The key of an answer that tells of a failure; servers look for it.
FAILURE_KEY = "checkpoint_engine_failure"
# How long the last answer of an update may still be on its way when the worker ends.
CONTEXT_END_S = 5.0
_CONTEXT_ATTRIBUTE = "_checkpoint_engine_zmq_context"


class VllmColocateWorkerExtension:
    """Gives vLLM's worker the method that an update calls over ``/collective_rpc``.

    vLLM from 0.33 on calls the two hooks when the worker has its device, and when it ends.
    """

    def init_worker_extension(self) -> None:
        """Makes the ZeroMQ context; without this hook the first update makes it."""
        _context(self)

    def destroy_worker_extension(self) -> None:
        """Ends the ZeroMQ context, and what an update has left in it; waits a moment at most."""
        context = vars(self).pop(_CONTEXT_ATTRIBUTE, None)
        if isinstance(context, zmq.Context):
            # Not `destroy`: it closes sockets under the threads that use them.
            ending = threading.Thread(target=context.term, daemon=True)
            ending.start()
            ending.join(CONTEXT_END_S)

    def update_weights_from_ipc(self, zmq_handles: dict[str, str]) -> dict[str, str] | None:
        """Takes new weights from the server; ``zmq_handles`` maps worker ids to addresses.

        Raises ``checkpoint_engine.errors.UpdateError``. The engine lives on after a failure, with a
        mixture of old and new weights, and takes the next update of the whole checkpoint.

        One of several workers returns the failure instead, under ``FAILURE_KEY``: vLLM reads the
        answers of its workers in turn and stops at the first that raises, so that the others'
        answers would be taken for those to its next call.
        """
        try:
            _update(self, zmq_handles)
        except Exception as error:
            if self.vllm_config.parallel_config.world_size == 1:  # type: ignore[attr-defined]
                raise
            _logger.exception("The update has failed on this worker")
            return {FAILURE_KEY: summary(error)}
        return None


def _update(worker: Any, zmq_handles: dict[str, str]) -> None:
    # Imported here, because `worker` exports the class above.
    import vllm

    from .vllm_update import EngineUpdate
    from .worker import update_weights_from_ipc

    worker_id = vllm_worker_id(worker)
    address = _address(zmq_handles, worker_id, worker.vllm_config.parallel_config.world_size)
    update = EngineUpdate(worker)
    update_weights_from_ipc(
        _context(worker),
        address,
        # `None` on the CPU.
        device_id=worker.device.index,
        clones_buckets=update.keeps_tensors,
        catalog_hook=update.examine,
        run=update.load,
        post_hook=update.commit,
        abort_hook=update.discard,
        worker_id=worker_id,
        software=f"vllm {vllm.__version__}",
    )


def vllm_worker_id(worker: Any) -> str:
    """``GPU-<uuid>``, or ``CPU-<rank in the engine>``, of a worker of vLLM."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        parallel = worker.vllm_config.parallel_config
        return f"CPU-{parallel.data_parallel_index * parallel.world_size + worker.rank}"
    uuid = str(current_platform.get_device_uuid(worker.device.index))
    return uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"


def _address(zmq_handles: object, worker_id: str, worker_count: int) -> str:
    """The address for this worker, one of ``worker_count``. Raises ``WorkerIdError``.

    All workers refuse a map that lacks one of them: else those that have an address would commit,
    and the engine would hold a mixture.
    """
    if not isinstance(zmq_handles, dict):
        raise WorkerIdError(
            f"the map of worker ids to addresses is a {type(zmq_handles).__name__}, not a dict"
        )
    if len(zmq_handles) < worker_count:
        raise WorkerIdError(
            f"the update has addresses for {len(zmq_handles)} workers, and this engine has "
            f"{worker_count}: nothing was loaded. Name all of its devices in the request, or leave "
            "their number out"
        )
    address = zmq_handles.get(worker_id)
    if not isinstance(address, str):
        known = ", ".join(sorted(map(str, zmq_handles))) or "none"
        raise WorkerIdError(
            f"the update has no address for the worker {worker_id}; it has them for: {known}. Name "
            "the devices of this engine in the request"
        )
    return address


def _context(worker: Any) -> zmq.Context[zmq.Socket[bytes]]:
    """The ZeroMQ context of ``worker``, which lives as long as it does."""
    context = getattr(worker, _CONTEXT_ATTRIBUTE, None)
    if not isinstance(context, zmq.Context):
        context = zmq.Context()
        setattr(worker, _CONTEXT_ATTRIBUTE, context)
    return context
