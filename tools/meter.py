"""Time and memory of a device, a GPU or a CPU."""

import gc
import platform
import shutil
import subprocess
import time
from typing import Any

import torch

from miniclip_utils.device import device_name

Row = dict[str, Any]  # a name and a value for each column of a table


class Meter:
    """Time and memory of a device. A CPU has no count of its peak memory."""

    def __init__(self, device: torch.device):
        self.device, self.is_cuda = device, device.type == "cuda"

    def mark(self) -> Any:
        """A moment in the device's own time, noted without waiting for the device."""
        if not self.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, marks: list[Any]) -> list[float]:
        """The times from each mark to the next, once the device has passed all of them."""
        steps = list(zip(marks, marks[1:], strict=False))
        if not self.is_cuda:
            return [1000 * (end - start) for start, end in steps]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in steps]

    def reset(self) -> None:
        """Gives free memory back, and begins to count from what is held now."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.held = torch.cuda.memory_allocated()

    def peak_gigabytes(self) -> float | None:
        """The most memory that tensors took since `reset`, beyond what they held then."""
        return (torch.cuda.max_memory_allocated() - self.held) / 1e9 if self.is_cuda else None

    def machine(self) -> Row:
        """What the numbers belong to."""
        driver = None
        if self.is_cuda and shutil.which("nvidia-smi"):
            query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            driver = subprocess.run(query, capture_output=True, text=True).stdout.partition("\n")[0]
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()}
        return {"device": device_name(self.device), "driver": driver, **versions}
