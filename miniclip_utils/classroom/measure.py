"""What a piece of code costs: seconds, and bytes of tensors."""

import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """The fastest of some repeats: what disturbs a measurement only makes it slower."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # a GPU still works when the call has returned
        times.append(time.perf_counter() - started)
    return min(times)


def peak_memory(work: Callable[[], Any]) -> int:
    """Most bytes that the tensors made by `work` hold at one moment. The same on every machine."""
    with _TensorMemory() as memory:
        work()
    return memory.peak


class _TensorMemory(TorchDispatchMode):
    """Adds up the memory of each new tensor, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(result):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage._cdata in self.known | given:  # a view, or a change in place
                continue
            self.known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return result

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
