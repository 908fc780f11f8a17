"""Checks of lesson 10: the matrix's memory, joined logsumexps, the second pass, gathered gradients, a shard, GPU-days."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from . import Function, exercise, solved


@exercise(
    inputs=lambda: [(32_768, 4), (100_000, 2)],
    mistakes={
        "it grows with N, but the matrix has N · N numbers": lambda n, size: n * size / 1e9,
        "these are numbers, not bytes: each takes `bytes_per_number`": lambda n, size: n * n / 1e9,
        "these are bits: a byte has eight, and the size is in bytes already": lambda n, size: 8 * n * n * size / 1e9,
        "these are gibibytes, of 2³⁰ bytes: a gigabyte has 10⁹": lambda n, size: n * n * size / 2**30,
        "these are megabytes: divide by 10⁹": lambda n, size: n * n * size / 1e6,
        "these are bytes: divide by 10⁹": lambda n, size: n * n * size,
        "`bytes_per_number` is ignored: 4 is right for float32 alone": lambda n, size: n * n * 4 / 1e9,
    },
    tolerance=1e-6,
)
def matrix_gigabytes(n: int, bytes_per_number: int) -> float:
    return n**2 * bytes_per_number / 10**9


def draw_parts() -> dict[str, tuple[Tensor]]:
    """The logsumexps of three chunks of logits, once around 0 and once around 200."""
    chunks = torch.randn(3, 4, 5)
    return {"": (chunks.logsumexp(dim=1),), "with logits around 200": ((chunks + 200).logsumexp(dim=1),)}


@exercise(
    inputs=draw_parts,
    mistakes={
        # Right as long as the logits are small, so it comes before the others, of which some are inf as well.
        "the exponential leaves float32 (exp(89) is inf): take out the largest first": lambda x: x.exp().sum(dim=0).log(),
        "logsumexps do not add up: their exponentials do": lambda x: x.sum(dim=0),
        "this is their mean: take the logarithm of the sum of their exponentials": lambda x: x.mean(dim=0),
        "this is the largest part: near, but the other chunks count too": lambda x: x.amax(dim=0),
        "the logarithm is missing at the end": lambda x: x.exp().sum(dim=0),
        "this is the logarithm of the *mean*: each chunk already is a sum": lambda x: x.exp().mean(dim=0).log(),
        "it is joined over the columns (dim=1): chunks are rows here": lambda x: x.logsumexp(dim=1),
    },
)
def joined_logsumexp(parts: Tensor) -> Tensor:
    return parts.double().exp().sum(dim=0).log().float()  # float64 reaches to exp(709)


def gradient_left(second_pass: Function, encoder: nn.Linear, chunks: list[Tensor], gradients: list[Tensor]) -> Tensor | str:
    """The gradient of the encoder's weights after a second pass, or a word if there is none."""
    encoded: list[Tensor] = []
    encoder.register_forward_hook(lambda module, inputs, output: encoded.append(output))
    returned = second_pass(encoder, chunks, gradients)
    if encoder.weight.grad is None and not encoded:
        solved(returned)
    return "none" if encoder.weight.grad is None else encoder.weight.grad


def backward_from(scalar: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """A second pass with some scalar of each chunk's features and their gradients."""

    def second_pass(encode: Function, chunks: list[Tensor], gradients: list[Tensor]) -> None:
        for chunk, gradient in zip(chunks, gradients, strict=True):
            scalar(encode(chunk), gradient).backward()

    return second_pass


@exercise(
    inputs=lambda: (nn.Linear(4, 3, bias=False), list(torch.randn(7, 4).split(3)), list(torch.randn(7, 3).split(3))),
    package=backward_from(lambda y, g: (y * g).sum()),
    outcome=gradient_left,
    mistakes={
        "no gradient has reached the weights: go backward from the features of each chunk": lambda e, x, g: list(map(e, x)),
        "the gradients of the features are not used: `backward()` of a sum gives each feature a gradient of 1": (
            backward_from(lambda y, g: y.sum())
        ),
        "only the first chunk has reached the weights": lambda e, x, g: e(x[0]).backward(g[0]),
        "only the last chunk has reached the weights: gradients add up, so don't clear them in between": (
            lambda e, x, g: e(x[-1]).backward(g[-1])
        ),
        "each chunk gets the gradients of the first one": (
            lambda e, x, g: e(torch.cat(x)).backward(torch.cat([g[0][: len(chunk)] for chunk in x]))
        ),
        "the sign is turned": backward_from(lambda y, g: -(y * g).sum()),
        "it is a mean over the chunks: their gradients add up": backward_from(lambda y, g: (y * g).sum() / 3),
        "the product is averaged over its numbers: add them up": backward_from(lambda y, g: (y * g).mean()),
    },
)
def second_pass(encode: Function, chunks: list[Tensor], gradients: list[Tensor]) -> None:
    encode(torch.cat(chunks)).backward(torch.cat(gradients))  # the whole batch at once


def total(gradients: list[Tensor]) -> Tensor:
    return torch.stack(gradients).sum(dim=0)


@exercise(
    inputs=lambda: ([torch.randn(6, 4) for _ in range(3)], 1),  # three processes, with two pairs each
    mistakes={
        "only this process's own loss is in it: the others used your features too": lambda g, r: g[r].chunk(3)[r],
        "your own loss is missing: add up all processes": lambda g, r: (total(g) - g[r]).chunk(3)[r],
        "it is averaged: add up. DistributedDataParallel averages later, and once": lambda g, r: total(g).chunk(3)[r] / 3,
        "the rows are not cut: you need only those of this process's features": lambda g, r: total(g),
        "these are the rows of the first process": lambda g, r: total(g).chunk(3)[0],
        "this is another process's share of rows: rank · B is where yours start": lambda g, r: total(g).chunk(3)[r + 1],
        "every third row is taken: a process's rows stand together": lambda g, r: total(g)[r::3],
    },
)
def own_gradient(gradients: list[Tensor], rank: int) -> Tensor:
    size = len(gradients[0]) // len(gradients)
    return total(gradients)[rank * size : (rank + 1) * size]


def draw_shard() -> tuple[Tensor, Tensor, Tensor, Tensor, float, int]:
    """Process 1 of four, with three pairs each."""
    everyone = torch.randn(2, 12, 5)
    all_image, all_text = everyone / everyone.norm(dim=2, keepdim=True)
    return all_image[3:6], all_text[3:6], all_image, all_text, 8.0, 1


def cost(logits: Tensor, first: int) -> float:
    """Mean cross-entropy when row i's own column is first + i."""
    return (logits.exp().sum(dim=1).log() - logits[:, first:].diag()).mean().item()


def both(i: Tensor, t: Tensor, all_i: Tensor, all_t: Tensor, scale: float, first: int) -> float:
    return (cost(scale * i @ all_t.T, first) + cost(scale * t @ all_i.T, first)) / 2


@exercise(
    inputs=draw_shard,
    # i and t are this process's images and texts, ai and at those of all, r is the rank.
    mistakes={
        "the targets start at 0: your pairs stand from column rank · B on": (
            lambda i, t, ai, at, s, r: both(i, t, ai, at, s, 0)
        ),
        "the targets start at `rank`: your pairs stand from column rank · B on": both,
        "your rows meet only your own columns: compare them with the features of all": (
            lambda i, t, ai, at, s, r: both(i, t, i, t, s, 0)
        ),
        "one direction is missing: this is only image → text": lambda i, t, ai, at, s, r: cost(s * i @ at.T, r * len(i)),
        "one direction is missing: this is only text → image": lambda i, t, ai, at, s, r: cost(s * t @ ai.T, r * len(i)),
        "images are compared with images, and texts with texts": (
            lambda i, t, ai, at, s, r: both(i, t, at, ai, s, r * len(i))
        ),
        "the two directions are added, and not averaged": lambda i, t, ai, at, s, r: 2 * both(i, t, ai, at, s, r * len(i)),
        "the scale is missing": lambda i, t, ai, at, s, r: both(i, t, ai, at, 1, r * len(i)),
        "this is the loss of the whole batch: each process needs only its own rows": (
            lambda i, t, ai, at, s, r: both(ai, at, ai, at, s, 0)
        ),
    },
)
def shard_loss(image: Tensor, text: Tensor, all_image: Tensor, all_text: Tensor, scale: float, rank: int) -> float:
    return both(image, text, all_image, all_text, scale, rank * len(image))


@exercise(
    inputs=lambda: [(14e9, 400e6, 32.0, 40e12), (2e9, 10e6, 7.0, 3e12)],
    mistakes={
        "this is the forward pass alone: the backward pass costs twice as much again": (
            lambda f, n, e, rate: f * n * e / rate / 86_400
        ),
        "the backward pass counts once here: it makes two products for each of the forward pass": (
            lambda f, n, e, rate: 2 * f * n * e / rate / 86_400
        ),
        "these are seconds: a day has 86,400": lambda f, n, e, rate: 3 * f * n * e / rate,
        "these are hours: a day has 24": lambda f, n, e, rate: 3 * f * n * e / rate / 3_600,
        "the forward pass in hours, without the backward pass": lambda f, n, e, rate: f * n * e / rate / 3_600,
        "the forward pass in seconds, without the backward pass": lambda f, n, e, rate: f * n * e / rate,
        "this is one epoch: every pair is seen `epochs` times": lambda f, n, e, rate: 3 * f * n / rate / 86_400,
    },
    tolerance=1e-6,
)
def gpu_days(forward_flops: float, pairs: float, epochs: float, flops_per_second: float) -> float:
    forward, backward = forward_flops, 2 * forward_flops
    return epochs * pairs * (forward + backward) / (flops_per_second * 24 * 60 * 60)
