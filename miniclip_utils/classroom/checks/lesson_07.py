"""Checks of lesson 07: the matrix's memory, joined logsumexps, the second pass, gathered gradients, a shard, GPU-days."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .before import NotSolved, diagnose, exercise, number


@exercise
def matrix_gigabytes(answer: Callable[[int, int], float]) -> str | None:
    cases = [(32_768, 4), (100_000, 2)]
    got = torch.tensor([number(answer(n, size)) for n, size in cases], dtype=torch.float64)

    def by(formula: Callable[[int, int], float]) -> Tensor:
        return torch.tensor([formula(n, size) for n, size in cases], dtype=torch.float64)

    return diagnose(
        got,
        by(lambda n, size: n * n * size / 1e9),
        {
            "it grows with N, but the matrix has N · N numbers": by(lambda n, size: n * size / 1e9),
            "these are numbers, not bytes: each takes `bytes_per_number`": by(lambda n, size: n * n / 1e9),
            "these are bits: a byte has eight, and the size is in bytes already": by(lambda n, size: 8 * n * n * size / 1e9),
            "these are gibibytes, of 2³⁰ bytes: a gigabyte has 10⁹": by(lambda n, size: n * n * size / 2**30),
            "these are megabytes: divide by 10⁹": by(lambda n, size: n * n * size / 1e6),
            "these are bytes: divide by 10⁹": by(lambda n, size: n * n * size),
            "`bytes_per_number` is ignored: 4 is right for float32 alone": by(lambda n, size: n * n * 4 / 1e9),
        },
        tolerance=1e-6,
    )


@exercise
def joined_logsumexp(answer: Callable[[Tensor], Tensor]) -> str | None:
    logits = torch.randn(12, 5, dtype=torch.float64)

    def problem(offset: float) -> tuple[Tensor, Tensor]:
        values = (logits + offset).float()
        largest = values.amax(dim=0)
        right = (values.double() - largest).exp().sum(dim=0).log() + largest
        return torch.stack([part.logsumexp(dim=0) for part in values.split(4)]), right.float()

    parts, right = problem(0.0)
    wrong = diagnose(
        answer(parts.clone()),
        right,
        {
            "logsumexps do not add up: their exponentials do": parts.sum(dim=0),
            "this is their mean: take the logarithm of the sum of their exponentials": parts.mean(dim=0),
            "this is the largest part: near, but the other chunks count too": parts.amax(dim=0),
            "the logarithm is missing at the end": parts.exp().sum(dim=0),
            "this is the logarithm of the *mean*: each chunk already is a sum": parts.exp().mean(dim=0).log(),
            "it is joined over the columns (dim=1): chunks are rows here": parts.logsumexp(dim=1),
        },
    )
    if wrong:
        return wrong
    parts, right = problem(200.0)
    if not torch.allclose(answer(parts).double(), right.double(), rtol=1e-4):
        return "with logits around 200 the exponential leaves float32 (exp(89) is inf): take out the largest first"
    return None


@exercise
def second_pass(answer: Callable[[Callable[[Tensor], Tensor], list[Tensor], list[Tensor]], object]) -> str | None:
    encoder = nn.Linear(4, 3, bias=False)
    chunks, gradients = torch.randn(7, 4).split(3), torch.randn(7, 3).split(3)
    encoded: list[Tensor] = []
    encoder.register_forward_hook(lambda module, inputs, output: encoded.append(output))
    returned = answer(encoder, list(chunks), list(gradients))
    if encoder.weight.grad is None and returned is None and not encoded:
        raise NotSolved
    if encoder.weight.grad is None:
        return "no gradient has reached the weights: go backward from the features of each chunk"
    own = [gradient.T @ chunk for chunk, gradient in zip(chunks, gradients, strict=True)]  # of each chunk, by hand
    return diagnose(
        encoder.weight.grad,
        sum(own),  # type: ignore[arg-type]
        {
            "the gradients of the features are not used: `backward()` of a sum gives each feature a gradient of 1": sum(
                chunk.sum(dim=0).expand(3, 4) for chunk in chunks
            ),
            "only the first chunk has reached the weights": own[0],
            "only the last chunk has reached the weights: gradients add up, so don't clear them in between": own[-1],
            "each chunk gets the gradients of the first one": sum(gradients[0][: len(chunk)].T @ chunk for chunk in chunks),
            "the sign is turned": -sum(own),  # type: ignore[operator]
            "it is a mean over the chunks: their gradients add up": sum(own) / len(own),
            "the product is averaged over its numbers: add them up": sum(
                part / gradient.numel() for part, gradient in zip(own, gradients, strict=True)
            ),
        },
    )


@exercise
def own_gradient(answer: Callable[[list[Tensor], int], Tensor]) -> str | None:
    size, rank = 2, 1
    gradients = [torch.randn(3 * size, 4) for _ in range(3)]  # three processes
    rows = slice(rank * size, (rank + 1) * size)
    total = gradients[0] + gradients[1] + gradients[2]
    return diagnose(
        answer([gradient.clone() for gradient in gradients], rank),
        total[rows],
        {
            "only this process's own loss is in it: the others used your features too": gradients[rank][rows],
            "your own loss is missing: add up all processes": (total - gradients[rank])[rows],
            "it is averaged: add up. DistributedDataParallel averages later, and once": total[rows] / 3,
            "the rows are not cut: you need only those of this process's features": total,
            "these are the rows of the first process": total[:size],
            "this is another process's share of rows: rank · B is where yours start": total[2 * size :],
            "every third row is taken: a process's rows stand together": total[rank::3],
        },
    )


@exercise
def shard_loss(answer: Callable[[Tensor, Tensor, Tensor, Tensor, float, int], Tensor]) -> str | None:
    size, rank, scale = 3, 1, 8.0
    everyone = torch.randn(2, 4 * size, 5)  # four processes
    all_image, all_text = everyone / everyone.norm(dim=2, keepdim=True)
    rows = slice(rank * size, (rank + 1) * size)
    image, text = all_image[rows], all_text[rows]
    matrix = scale * all_image @ all_text.T

    def cost(logits: Tensor, first: int) -> Tensor:
        """Mean cross-entropy when row i's own column is first + i."""
        own = torch.stack([row[first + i] for i, row in enumerate(logits)])
        return (logits.exp().sum(dim=1).log() - own).mean()

    def both(columns: Callable[[Tensor], Tensor], first: int) -> Tensor:
        return (cost(columns(matrix[rows]), first) + cost(columns(matrix.T[rows]), first)) / 2

    start = rank * size
    right = both(lambda logits: logits, start)
    plain = (cost(matrix[rows] / scale, start) + cost(matrix.T[rows] / scale, start)) / 2
    return diagnose(
        answer(image, text, all_image, all_text, scale, rank),
        right,
        {
            "the targets start at 0: your pairs stand from column rank · B on": both(lambda logits: logits, 0),
            "the targets start at `rank`: your pairs stand from column rank · B on": both(lambda logits: logits, rank),
            "your rows meet only your own columns: compare them with the features of all": both(
                lambda logits: logits[:, rows], 0
            ),
            "one direction is missing: this is only image → text": cost(matrix[rows], start),
            "one direction is missing: this is only text → image": cost(matrix.T[rows], start),
            "images are compared with images, and texts with texts": (
                cost(scale * image @ all_image.T, start) + cost(scale * text @ all_text.T, start)
            )
            / 2,
            "the two directions are added, and not averaged": 2 * right,
            "the scale is missing": plain,
            "this is the loss of the whole batch: each process needs only its own rows": (
                cost(matrix, 0) + cost(matrix.T, 0)
            )
            / 2,
        },
    )


@exercise
def gpu_days(answer: Callable[[float, float, float, float], float]) -> str | None:
    cases = [(14e9, 400e6, 32.0, 40e12), (2e9, 10e6, 7.0, 3e12)]
    got = torch.tensor([number(answer(*case)) for case in cases], dtype=torch.float64)

    def times(factor: float) -> Tensor:
        days = [flops * pairs * epochs / rate / 86_400 for flops, pairs, epochs, rate in cases]
        return factor * torch.tensor(days, dtype=torch.float64)

    epochs = torch.tensor([case[2] for case in cases], dtype=torch.float64)
    return diagnose(
        got,
        times(3),
        {
            "this is the forward pass alone: the backward pass costs twice as much again": times(1),
            "the backward pass counts once here: it makes two products for each of the forward pass": times(2),
            "these are seconds: a day has 86,400": times(3 * 86_400),
            "these are hours: a day has 24": times(3 * 24),
            "the forward pass in hours, without the backward pass": times(24),
            "the forward pass in seconds, without the backward pass": times(86_400),
            "this is one epoch: every pair is seen `epochs` times": times(3) / epochs,
        },
        tolerance=1e-6,
    )
