"""Many processes as one: who is who, and features that travel between them with their gradient."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import UserError


@contextmanager
def processes() -> Iterator[None]:
    """Joins this process with the others that `torchrun` has started. Without `torchrun` it does nothing.

    "cuda" is then each process's own GPU, and torchrun's word to stop is a KeyboardInterrupt.

    Raises:
        UserError: another process has ended.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if local_rank < torch.cuda.device_count():  # more processes than GPUs may still train on the CPU
        torch.cuda.set_device(local_rank)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    dist.init_process_group()  # gloo for tensors on the CPU, NCCL for those on GPUs
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "onnection" in str(error):
            raise UserError(
                "another process of this run has ended: what whole epochs reached is kept; go on with --resume"
            ) from error
        raise
    dist.barrier()  # nobody leaves while others still talk
    dist.destroy_process_group()


def world_size() -> int:
    """How many processes train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def gather(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; with one process, its own.

    Gradients travel back: each process gets those that all others have with respect to its rows. With gathered
    features, every loss of `losses` is the loss of one process with the whole batch, and so are the parameters'
    gradients once DistributedDataParallel has averaged them (but where a BatchNorm sees only its process's share).

    Args:
        rows: (B, …), of the same shape in every process.

    Returns:
        (world_size · B, …).
    """
    return _Gather.apply(rows) if world_size() > 1 else rows


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        everyone = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(everyone, rows.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)  # summed over the processes: each used these rows in its own loss
        return gradient.chunk(world_size())[rank()]
