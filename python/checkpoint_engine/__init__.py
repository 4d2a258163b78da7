"""Checkpoint Engine in Python: what engines import, and what trainers call.

``checkpoint_engine.worker`` is for engines, ``checkpoint_engine.ps`` for trainers. The names below
are imported when they are used first: importing the package imports neither torch nor an engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import request_inference_to_update
    from .data_types import (
        BucketRange,
        DataToGather,
        H2DBucket,
        MemoryBuffer,
        MemoryBufferMetaList,
        MemoryBufferMetas,
        ParameterMeta,
    )
    from .ps import ParameterServer
    from .worker import (
        FlattenedTensorMetadata,
        VllmColocateWorkerExtension,
        update_weights_from_ipc,
    )

__version__ = "0.1.0"

__all__ = [
    "BucketRange",
    "DataToGather",
    "FlattenedTensorMetadata",
    "H2DBucket",
    "MemoryBuffer",
    "MemoryBufferMetaList",
    "MemoryBufferMetas",
    "ParameterMeta",
    "ParameterServer",
    "VllmColocateWorkerExtension",
    "__version__",
    "request_inference_to_update",
    "update_weights_from_ipc",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module: Any
    if name == "ParameterServer":
        from . import ps as module
    elif name == "request_inference_to_update":
        from . import api as module
    elif name in {
        "FlattenedTensorMetadata",
        "VllmColocateWorkerExtension",
        "update_weights_from_ipc",
    }:
        from . import worker as module
    else:
        from . import data_types as module
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
