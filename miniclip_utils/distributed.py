"""Many processes as one: who is who, and features that travel between them with their gradient."""

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .errors import UserError


@contextmanager
def process_group() -> Iterator[None]:
    """Joins this process with the others that `torchrun` has started. Without `torchrun` it does nothing.

    "cuda" is then each process's own GPU, and torchrun's word to stop is a KeyboardInterrupt. Warnings are the first
    process's alone.

    Raises:
        UserError: another process has ended.
        SystemExit: the process would end with a UserError or KeyboardInterrupt, and another one has done so before.
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
        with warnings.catch_warnings():
            if rank() > 0:
                warnings.simplefilter("ignore")
            yield
    except (RuntimeError, UserError, KeyboardInterrupt) as error:
        is_lost = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "onnection" in str(error))
        if isinstance(error, RuntimeError) and not is_lost:
            raise
        if not is_first_to_end():
            sys.exit(2)
        if is_lost:
            raise UserError(
                "another process of this run has ended: what whole epochs reached is kept; go on with --resume"
            ) from error
        raise
    dist.barrier()  # nobody leaves while others still talk
    dist.destroy_process_group()


def is_first_to_end() -> bool:
    """Whether no other process has asked this before. The first one says why the run ends; the others end because of it.

    They agree by a counter in the store through which `torchrun` has brought them together.
    """
    try:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(*place, is_master=False, timeout=timedelta(seconds=10))
        return store.add(f"ended in attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", 1) == 1
    except dist.DistError:  # it is gone, so that nobody can say who was first
        return True


def world_size() -> int:
    """How many processes train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def own_share(rows: Tensor) -> Tensor:
    """This process's part of rows that every process has: every P-th, as many as each of the P processes can have."""
    return rows[rank() : len(rows) // world_size() * world_size() : world_size()]


def gather(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; with one process, its own.

    In the backward pass each process receives the gradients that all of them have for its rows. With gathered
    features, every loss of `losses` is the loss of one process with the whole batch, and so are the parameters'
    gradients once `average_gradients` has run (except that a BatchNorm sees only its process's share of the batch).

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


@torch.no_grad()
def average_gradients(model: nn.Module) -> None:
    """Replaces each gradient by its mean over all processes; with one process, does nothing.

    All gradients travel as one message, since each message has a cost of its own. DistributedDataParallel does the
    same, and sends the first gradients while the backward pass computes the rest.
    """
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    everything = torch.cat([gradient.flatten() for gradient in gradients]) / world_size()
    dist.all_reduce(everything)
    for gradient, mean in zip(gradients, everything.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
