"""The hardware of this machine: which device to use, and what it does fast."""

import ctypes
import platform

import torch

from .errors import UserError


def fastest_device() -> str:
    """The fastest kind of device that this machine has."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def find_device(name: str | torch.device | None = None) -> torch.device:
    """A device: the named one, or the fastest. One that torch does not know, or that is not here, is a `UserError`."""
    try:
        device = torch.device(name or fastest_device())
        torch.zeros(1, device=device).item()  # fails for "meta" too, whose tensors hold no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise UserError(f"the device {str(name)!r} cannot be used here ({reason}): try {fastest_device()!r}") from error
    return device


def device_name(device: torch.device) -> str:
    """The name of the hardware, for a report."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {platform.machine()}, {threads} thread{'s' if threads > 1 else ''}"


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 matrices faster than float32 ones. A CPU that has to emulate it is slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # not in older versions
        return torch.cpu.get_capabilities().get("avx512_bf16", False)
    return False


def keep_memory() -> None:
    """Lets this process keep the memory that a training step frees, for the next step.

    The C library of Linux gives large blocks back to the system, which fills each of their pages with zeros before it
    lends them again. The feature maps of a CPU's batch are such blocks. Other systems are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block comes from the system by itself
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: nothing is given back
