"""The checks of lesson 02: sizes, BatchNorm, the residual block, receptive fields, patches, the class token, pooling."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .before import diagnose, exercise, number


@exercise
def output_size(answer: Callable[[int, int, int, int], int]) -> str | None:
    cases = [(32, 2, 1, 0), (31, 3, 1, 1), (31, 2, 2, 0), (32, 4, 4, 0), (30, 7, 2, 3), (9, 5, 3, 1), (32, 3, 3, 0)]

    def each(function: Callable[[int, int, int, int], float]) -> Tensor:
        return torch.tensor([number(function(*case)) for case in cases], dtype=torch.float64)

    # The reference asks a real convolution.
    expected = each(lambda n, k, s, p: F.conv2d(torch.zeros(1, 1, n, n), torch.zeros(1, 1, k, k), None, s, p).shape[-1])
    return diagnose(
        each(answer),
        expected,
        {
            "one place is missing: the kernel's first place counts too, so add 1 after dividing by the stride": each(
                lambda n, k, s, p: (n + 2 * p - k) // s
            ),
            "the padding is counted once: it lies on both sides": each(lambda n, k, s, p: (n + p - k) // s + 1),
            "the padding is left out": each(lambda n, k, s, p: (n - k) // s + 1),
            "the stride is left out": each(lambda n, k, s, p: n + 2 * p - k + 1),
            "this is a fraction: a kernel that does not fit any more gives no place, so round down with //": each(
                lambda n, k, s, p: (n + 2 * p - k) / s + 1
            ),
            "this rounds up: a kernel that does not fit any more gives no place, so round down": each(
                lambda n, k, s, p: math.ceil((n + 2 * p - k) / s) + 1
            ),
            "this rounds to the nearest: a kernel that does not fit any more gives no place, so round down": each(
                lambda n, k, s, p: round((n + 2 * p - k) / s) + 1
            ),
            "add 1 after dividing by the stride, not before": each(lambda n, k, s, p: (n + 2 * p - k + 1) // s),
            "the kernel is left out: it stops as soon as its far edge touches the border": each(
                lambda n, k, s, p: (n + 2 * p) // s
            ),
        },
    )


@exercise
def batch_norm(answer: Callable[[Tensor, Tensor, Tensor, bool], Tensor]) -> str | None:
    x = 2 * torch.randn(4, 3, 5, 2) + torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1)
    mean, var = torch.randn(3), torch.rand(3) + 0.5

    def with_statistics_over(*dims: int) -> Tensor:
        return (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=0, keepdim=True) + 1e-5).sqrt()

    in_training, in_evaluation = (F.batch_norm(x, mean.clone(), var.clone(), training=mode) for mode in (True, False))
    batch_mean, batch_var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    shared = {
        "the mean is not subtracted": (x / batch_var.sqrt(), x / var.view(3, 1, 1).sqrt()),
        "you divide by the variance: divide by its square root": (
            (x - batch_mean) / batch_var,
            (x - mean.view(3, 1, 1)) / var.view(3, 1, 1),
        ),
        "the mean is subtracted, but nothing is divided by the standard deviation": (x - batch_mean, x - mean.view(3, 1, 1)),
        "nothing has changed: this is x itself": (x, x),
    }
    problem = diagnose(
        answer(x.clone(), mean.clone(), var.clone(), True),
        in_training,
        {
            "these are the running statistics: in training, use the batch's own": in_evaluation,
            "each image is normalised by itself: one mean for a channel, over the images too, dim=(0, 2, 3)": (
                with_statistics_over(2, 3)
            ),
            "each place has its own mean: a channel has one for all its places, dim=(0, 2, 3)": with_statistics_over(0),
            "each image is normalised over all channels, as LayerNorm does: BatchNorm keeps channels apart": (
                with_statistics_over(1, 2, 3)
            ),
            "all channels share one mean: BatchNorm keeps channels apart, dim=(0, 2, 3)": with_statistics_over(0, 1, 2, 3),
            "the variance divides by n − 1: BatchNorm divides by n, correction=0": (
                (x - batch_mean) / (x.var((0, 2, 3), keepdim=True) + 1e-5).sqrt()
            ),
            **{message: values[0] for message, values in shared.items()},
        },
        tolerance=1e-3,
    )
    if problem:
        return f"with training=True, {problem}"
    problem = diagnose(
        answer(x.clone(), mean.clone(), var.clone(), False),
        in_evaluation,
        {
            "these are the batch's own statistics: use the running ones, which do not depend on an image's neighbours": (
                in_training
            ),
            **{message: values[1] for message, values in shared.items()},
        },
        tolerance=1e-3,
    )
    if problem:
        return f"with training=False, {problem}"
    faint = x / 500  # its variance is not much larger than eps
    centred, faint_var = faint - faint.mean((0, 2, 3), keepdim=True), faint.var((0, 2, 3), correction=0, keepdim=True)
    problem = diagnose(
        answer(faint.clone(), mean.clone(), var.clone(), True),
        F.batch_norm(faint, None, None, training=True),
        {
            "eps is missing, and a channel that is the same everywhere would give 0/0": centred / faint_var.sqrt(),
            "eps is added to the standard deviation: it belongs under the root": centred / (faint_var.sqrt() + 1e-5),
        },
        tolerance=1e-3,
    )
    return problem and f"where the variance is tiny, {problem}"


@exercise
def residual_block(answer: Callable[..., Tensor]) -> str | None:
    x = torch.randn(4, 2, 6, 6)
    conv_1, conv_2, shortcut = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(2, 3, 1)
    norm_1, norm_2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    for norm in (norm_1, norm_2):  # so that they cannot stand in for each other
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    pool = nn.MaxPool2d(2)
    parts = (conv_1, norm_1, conv_2, norm_2, shortcut, pool)

    def bn(values: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        return F.batch_norm(values, None, None, norm.weight, norm.bias, training=True)

    # The reference uses functions on the weights, and takes the largest of each 2×2 by hand.
    def largest(values: Tensor) -> Tensor:
        return values.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax(dim=(3, 5))

    def convolve(values: Tensor, layer: nn.Conv2d) -> Tensor:
        return F.conv2d(values, layer.weight, layer.bias, padding="same")

    pooled = largest(convolve(x, conv_1))
    hidden = bn(pooled, norm_1).clamp(min=0)
    residual, way = bn(convolve(hidden, conv_2), norm_2), convolve(largest(x), shortcut)
    early = bn(convolve(largest(x), conv_1), norm_1).clamp(min=0)
    late = largest(bn(convolve(x, conv_1), norm_1).clamp(min=0))
    exchanged = bn(convolve(bn(pooled, norm_2).clamp(min=0), conv_2), norm_1)
    return diagnose(
        answer(x.clone(), *parts),
        (residual + way).clamp(min=0),
        {
            "the shortcut is not added: this is two convolutions and no residual block": residual.clamp(min=0),
            "neither the shortcut nor the last ReLU is there": residual,
            "the ReLU comes before the sum: a residual that cannot be negative can only add": residual.clamp(min=0) + way,
            "each summand has its own ReLU: add first, then one ReLU": residual.clamp(min=0) + way.clamp(min=0),
            "the last ReLU is missing: it follows the sum": residual + way,
            "the ReLU between the convolutions is missing: two linear layers in a row are one": (
                bn(convolve(bn(pooled, norm_1), conv_2), norm_2) + way
            ).clamp(min=0),
            "norm_1 is missing": (bn(convolve(pooled.clamp(min=0), conv_2), norm_2) + way).clamp(min=0),
            "norm_2 is missing": (convolve(hidden, conv_2) + way).clamp(min=0),
            "norm_1 and norm_2 are exchanged: each follows the convolution of its number": (exchanged + way).clamp(min=0),
            "you pool before conv_1: pool its output, so that it still reads all pixels": (
                bn(convolve(early, conv_2), norm_2) + way
            ).clamp(min=0),
            "you pool after norm_1: pool before it, so that there is a quarter as much to normalise": (
                bn(convolve(late, conv_2), norm_2) + way
            ).clamp(min=0),
            "the shortcut pools after its 1×1 convolution: pool first, which leaves it a quarter of the work": (
                residual + largest(convolve(x, shortcut))
            ).clamp(min=0),
        },
    )


@exercise
def receptive_field(answer: Callable[[list[tuple[int, int]]], int]) -> str | None:
    cases = [[(3, 1)], [(3, 1), (3, 1)], [(2, 1), (3, 1), (2, 2), (3, 1)], [(5, 2), (3, 3), (3, 2), (2, 1)]]

    def measured(layers: list[tuple[int, int]]) -> float:
        """How many inputs have a gradient from one output in the middle."""
        signal = torch.ones(1, 1, 201, requires_grad=True)
        out: Tensor = signal
        for kernel_size, stride in layers:
            out = F.conv1d(out, torch.ones(1, 1, kernel_size), stride=stride)
        (gradient,) = torch.autograd.grad(out[0, 0, out.shape[-1] // 2], signal)
        return float((gradient != 0).sum())

    def each(function: Callable[[list[tuple[int, int]]], float]) -> Tensor:
        return torch.tensor([number(function(list(case))) for case in cases], dtype=torch.float64)

    def walked(start: int = 1, add: Callable[[int, int, int], int] = lambda k, s, step: (k - 1) * step) -> Callable:
        def walk(layers: list[tuple[int, int]]) -> float:
            size, step = start, 1
            for kernel_size, stride in layers:
                size += add(kernel_size, stride, step)
                step *= stride
            return float(size)

        return walk

    def strides_added(layers: list[tuple[int, int]]) -> float:
        size, step = 1, 1
        for kernel_size, stride in layers:
            size += (kernel_size - 1) * step
            step += stride - 1
        return float(size)

    return diagnose(
        each(answer),
        each(measured),
        {
            "the strides are left out: behind a stride of 2, neighbours lie 2 pixels apart": each(
                walked(add=lambda k, s, step: k - 1)
            ),
            "a layer's own stride is counted too early: it spreads only the layers after it": each(
                walked(add=lambda k, s, step: (k - 1) * step * s)
            ),
            "only a layer's own stride is counted: the strides of all layers before it multiply": each(
                walked(add=lambda k, s, step: (k - 1) * s)
            ),
            "the strides are added up: they multiply": each(strides_added),
            "the whole kernel is added each time: its first place was there already, so add kernel_size − 1": each(
                walked(start=0, add=lambda k, s, step: k * step)
            ),
            "the whole kernel is added each time: a kernel of size k reaches over k − 1 steps": each(
                walked(add=lambda k, s, step: k * step)
            ),
            "you start from 0: one value sees at least itself, so start from 1": each(walked(start=0)),
            "the kernels are multiplied: each adds (kernel_size − 1) times the distance of its inputs": each(
                lambda layers: math.prod(kernel_size for kernel_size, _ in layers)
            ),
        },
    )


@exercise
def patchify(answer: Callable[[Tensor, int], Tensor]) -> str | None:
    images, p = torch.randn(2, 3, 4, 6), 2
    tiles = images.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (N, C, rows, p, columns, p)
    return diagnose(
        answer(images.clone(), p),
        F.unfold(images, p, stride=p).transpose(1, 2),
        {
            "a reshape alone cuts across the patches: split both sides, then permute": (images.reshape(2, 6, 12)),
            "each patch is a column: make it a row, (N, patches, C·p·p)": F.unfold(images, p, stride=p),
            "within a patch the channels come last: keep them in front, as a convolution's weight has them": (
                tiles.permute(0, 2, 4, 3, 5, 1).reshape(2, 6, 12)
            ),
            "the patches run down the columns: count them row by row, as we read": (
                tiles.permute(0, 4, 2, 1, 3, 5).reshape(2, 6, 12)
            ),
            "within a patch, rows and columns are swapped": tiles.permute(0, 2, 4, 1, 5, 3).reshape(2, 6, 12),
            "each channel is cut by itself: a patch holds all its channels": tiles.permute(0, 1, 2, 4, 3, 5).reshape(
                2, 18, 4
            ),
            "the images run together: keep N as the first dimension": (tiles.permute(0, 2, 4, 1, 3, 5).reshape(12, 12)),
        },
    )


@exercise
def add_class_token(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str | None:
    patches, class_token, places = torch.randn(2, 5, 4), torch.randn(4), torch.randn(6, 4)
    with_token = torch.stack([torch.vstack([class_token, image]) for image in patches])  # (2, 6, 4)
    at_end = torch.stack([torch.vstack([image, class_token]) for image in patches])
    return diagnose(
        answer(patches.clone(), class_token.clone(), places.clone()),
        with_token + places,
        {
            "the class token stands at the end: put it in front, where the model will look for it": at_end + places,
            "the positional embedding is missing: without it the patches have no order": with_token,
            "the class token is missing": patches + places[1:],
            "the class token has no place added: all P + 1 tokens get one": torch.cat(
                [with_token[:, :1], patches + places[1:]], dim=1
            ),
            "the places are shifted: the first row of positional_embedding is the class token's": torch.cat(
                [with_token[:, :1] + places[-1], patches + places[:-1]], dim=1
            ),
            "the positional embedding is multiplied: add it": with_token * places,
            "the class token is added to each patch: it is a token of its own, so concatenate": patches + class_token,
        },
    )


@exercise
def attention_pool(answer: Callable[[Tensor], Tensor]) -> str | None:
    x = torch.randn(3, 8, 2, 3)
    places = x.flatten(2).mT  # (N, H·W, C)
    query = places.mean(dim=1, keepdim=True)  # (N, 1, C)
    scores = query @ places.mT  # (N, 1, H·W)

    def pooled(weights: Tensor) -> Tensor:
        return (weights @ places).squeeze(1)

    expected = F.scaled_dot_product_attention(query, places, places)  # torch's own attention
    first = places[:, :1] @ places.mT / math.sqrt(8)
    joined = torch.cat([query, places], dim=1)
    return diagnose(
        answer(x.clone()),
        expected.squeeze(1),
        {
            "all places weigh the same: this is the plain mean, which is only the query": query.squeeze(1),
            "the scores are not divided by √C: without it, long vectors make the softmax pick one place": pooled(
                scores.softmax(-1)
            ),
            "the scores are divided by C: divide by its square root": pooled((scores / 8).softmax(-1)),
            "the softmax runs over the wrong dimension: the weights of one image's places sum to 1": pooled(
                (scores / math.sqrt(8)).softmax(0)
            ),
            "this is the sum of all places: a softmax over a dimension of size 1 gives 1, so take the last one": (
                places.sum(dim=1)
            ),
            "the mean is among the keys and values too, as in CLIP: here they are the places alone": (
                F.scaled_dot_product_attention(query, joined, joined).squeeze(1)
            ),
            "the softmax is missing: scores can be negative and sum to anything": pooled(scores / math.sqrt(8)),
            "the query is the first place: it is the mean of all of them": pooled(first.softmax(-1)),
            "the query is the largest value of each channel: it is their mean": pooled(
                (places.amax(dim=1, keepdim=True) @ places.mT / math.sqrt(8)).softmax(-1)
            ),
            "the weighted places are averaged: the weights sum to 1 already, so add them up": expected.squeeze(1) / 6,
            "these are the weights: use them to add up the places": (scores / math.sqrt(8)).softmax(-1).squeeze(1),
            "there is one dimension too many: one query gives one vector, (N, C)": expected,
        },
    )
