"""Checks of lesson 02: sizes, BatchNorm, the residual block, receptive fields, patches, the class token, pooling."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import Function, exercise


@exercise(
    inputs=lambda: [(32, 2, 1, 0), (31, 3, 1, 1), (31, 2, 2, 0), (32, 4, 4, 0), (30, 7, 2, 3), (9, 5, 3, 1), (32, 3, 3, 0)],
    mistakes={
        "one place is missing: the kernel's first place counts too, so add 1 after dividing by the stride": (
            lambda n, k, s, p: (n + 2 * p - k) // s
        ),
        "the padding is counted once: it lies on both sides": lambda n, k, s, p: (n + p - k) // s + 1,
        "the padding is left out": lambda n, k, s, p: (n - k) // s + 1,
        "the stride is left out": lambda n, k, s, p: n + 2 * p - k + 1,
        "this is a fraction: a kernel that does not fit any more gives no place, so round down with //": (
            lambda n, k, s, p: (n + 2 * p - k) / s + 1
        ),
        "this rounds up: a kernel that does not fit any more gives no place, so round down": (
            lambda n, k, s, p: math.ceil((n + 2 * p - k) / s) + 1
        ),
        "this rounds to the nearest: a kernel that does not fit any more gives no place, so round down": (
            lambda n, k, s, p: round((n + 2 * p - k) / s) + 1
        ),
        "add 1 after dividing by the stride, not before": lambda n, k, s, p: (n + 2 * p - k + 1) // s,
        "the kernel is left out: it stops as soon as its far edge touches the border": lambda n, k, s, p: (n + 2 * p) // s,
    },
)
def output_size(size: int, kernel_size: int, stride: int = 1, padding: int = 0) -> int:
    image, kernel = torch.zeros(1, 1, size, size), torch.zeros(1, 1, kernel_size, kernel_size)
    return F.conv2d(image, kernel, stride=stride, padding=padding).shape[-1]


def draw_activations() -> dict[str, tuple[Tensor, Tensor, Tensor, bool]]:
    x = 2 * torch.randn(4, 3, 5, 2) + torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1)
    mean, var = torch.randn(3), torch.rand(3) + 0.5
    return {
        "with training=True": (x, mean, var, True),
        "with training=False": (x, mean, var, False),
        "where the variance is tiny": (x / 500, mean, var, True),  # not much larger than eps
    }


def from_statistics(formula: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Function:
    """A formula of x, with the mean and the variance that BatchNorm takes."""

    def normalize(x: Tensor, mean: Tensor, var: Tensor, training: bool) -> Tensor:
        if training:
            return formula(x, x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True))
        return formula(x, mean.view(3, 1, 1), var.view(3, 1, 1))

    return normalize


def over(*dims: int, correction: int = 0) -> Function:
    """Right in evaluation; in training, with the statistics over some dimensions."""
    return lambda x, mean, var, training: (
        (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=correction, keepdim=True) + 1e-5).sqrt()
        if training
        else F.batch_norm(x, mean, var)
    )


@exercise(
    inputs=draw_activations,
    mistakes={
        "these are the running statistics: in training, use the batch's own": lambda x, m, v, train: F.batch_norm(x, m, v),
        "these are the batch's own statistics: use the running ones, which do not depend on an image's neighbours": (
            lambda x, m, v, train: F.batch_norm(x, None, None, training=True)
        ),
        "each image is normalised by itself: one mean for a channel, over the images too, dim=(0, 2, 3)": over(2, 3),
        "each place has its own mean: a channel has one for all its places, dim=(0, 2, 3)": over(0),
        "each image is normalised over all channels, as LayerNorm does: BatchNorm keeps channels apart": over(1, 2, 3),
        "all channels share one mean: BatchNorm keeps channels apart, dim=(0, 2, 3)": over(0, 1, 2, 3),
        "the variance divides by n − 1: BatchNorm divides by n, correction=0": over(0, 2, 3, correction=1),
        "the mean is not subtracted": from_statistics(lambda x, m, v: x / v.sqrt()),
        "you divide by the variance: divide by its square root": from_statistics(lambda x, m, v: (x - m) / v),
        "the mean is subtracted, but nothing is divided by the standard deviation": from_statistics(lambda x, m, v: x - m),
        "nothing has changed: this is x itself": lambda x, m, v, train: x,
        "eps is missing, and a channel that is the same everywhere would give 0/0": (
            from_statistics(lambda x, m, v: (x - m) / v.sqrt())
        ),
        "eps is added to the standard deviation: it belongs under the root": (
            from_statistics(lambda x, m, v: (x - m) / (v.sqrt() + 1e-5))
        ),
    },
    tolerance=1e-3,
)
def batch_norm(x: Tensor, running_mean: Tensor, running_var: Tensor, training: bool) -> Tensor:
    return F.batch_norm(x, running_mean.clone(), running_var.clone(), training=training)


Part = Callable[[Tensor], Tensor]


def draw_block() -> tuple[Tensor | nn.Module, ...]:
    norm_1, norm_2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    for norm in (norm_1, norm_2):  # so that they cannot stand in for each other
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    conv_1, conv_2, shortcut = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(2, 3, 1)
    return torch.randn(4, 2, 6, 6), conv_1, norm_1, conv_2, norm_2, shortcut, nn.MaxPool2d(2)


def block(residual: str = "c1 pool n1 relu c2 n2", shortcut: str = "pool short", end: str = "relu") -> Function:
    """The names of the parts that x passes on both ways, and of those after the sum."""

    def out(x: Tensor, *parts: Part) -> Tensor:
        named = dict(zip(("c1", "n1", "c2", "n2", "short", "pool"), parts, strict=True), relu=F.relu, zero=torch.zeros_like)

        def passed(x: Tensor, way: str) -> Tensor:
            for part in way.split():
                x = named[part](x)
            return x

        return passed(passed(x, residual) + passed(x, shortcut), end)

    return out


@exercise(
    inputs=draw_block,
    mistakes={
        "the shortcut is not added: this is two convolutions and no residual block": block(shortcut="pool short zero"),
        "neither the shortcut nor the last ReLU is there": block(shortcut="pool short zero", end=""),
        "the ReLU comes before the sum: a residual that cannot be negative can only add": (
            block("c1 pool n1 relu c2 n2 relu", end="")
        ),
        "each summand has its own ReLU: add first, then one ReLU": (
            block("c1 pool n1 relu c2 n2 relu", "pool short relu", "")
        ),
        "the last ReLU is missing: it follows the sum": block(end=""),
        "the ReLU between the convolutions is missing: two linear layers in a row are one": block("c1 pool n1 c2 n2"),
        "norm_1 is missing": block("c1 pool relu c2 n2"),
        "norm_2 is missing": block("c1 pool n1 relu c2"),
        "norm_1 and norm_2 are exchanged: each follows the convolution of its number": block("c1 pool n2 relu c2 n1"),
        "you pool before conv_1: pool its output, so that it still reads all pixels": block("pool c1 n1 relu c2 n2"),
        "you pool after norm_1: pool before it, so that there is a quarter as much to normalise": (
            block("c1 n1 pool relu c2 n2")
        ),
        "the shortcut pools after its 1×1 convolution: pool first, which leaves it a quarter of the work": (
            block(shortcut="short pool")
        ),
    },
)
def residual_block(x: Tensor, conv_1: Part, norm_1: Part, conv_2: Part, norm_2: Part, shortcut: Part, pool: Part) -> Tensor:
    return block()(x, conv_1, norm_1, conv_2, norm_2, shortcut, pool)


def walk(grow: Callable[[int, int, int], int], start: int = 1) -> Function:
    """Layer by layer, with the right distance of a layer's inputs.

    Args:
        grow: kernel size, stride, distance of the inputs → what the layer adds to the size.
    """

    def size(layers: list[tuple[int, int]]) -> int:
        strides = [stride for _, stride in layers]
        return start + sum(grow(k, s, math.prod(strides[:i])) for i, (k, s) in enumerate(layers))

    return size


def strides_added(layers: list[tuple[int, int]]) -> int:
    size, step = 1, 1
    for kernel_size, stride in layers:
        size += (kernel_size - 1) * step
        step += stride - 1
    return size


@exercise(
    inputs=lambda: [
        ([(3, 1)],),
        ([(3, 1), (3, 1)],),
        ([(2, 1), (3, 1), (2, 2), (3, 1)],),
        ([(5, 2), (3, 3), (3, 2), (2, 1)],),
    ],
    mistakes={
        "the strides are left out: behind a stride of 2, neighbours lie 2 pixels apart": walk(lambda k, s, d: k - 1),
        "a layer's own stride is counted too early: it spreads only the layers after it": (
            walk(lambda k, s, d: (k - 1) * d * s)
        ),
        "only a layer's own stride is counted: the strides of all layers before it multiply": (
            walk(lambda k, s, d: (k - 1) * s)
        ),
        "the strides are added up: they multiply": strides_added,
        "the whole kernel is added each time: its first place was there already, so add kernel_size − 1": (
            walk(lambda k, s, d: k * d, start=0)
        ),
        "the whole kernel is added each time: a kernel of size k reaches over k − 1 steps": walk(lambda k, s, d: k * d),
        "you start from 0: one value sees at least itself, so start from 1": walk(lambda k, s, d: (k - 1) * d, start=0),
        "the kernels are multiplied: each adds (kernel_size − 1) times the distance of its inputs": (
            lambda layers: math.prod(kernel_size for kernel_size, _ in layers)
        ),
    },
)
def receptive_field(layers: list[tuple[int, int]]) -> int:
    # How many inputs have a gradient from one output in the middle.
    signal = torch.ones(1, 1, 999, requires_grad=True)
    out: Tensor = signal
    for kernel_size, stride in layers:
        out = F.conv1d(out, torch.ones(1, 1, kernel_size), stride=stride)
    (gradient,) = torch.autograd.grad(out[0, 0, out.shape[-1] // 2], signal)
    return int(gradient.count_nonzero())


def cut(order: str, shape: tuple[int, ...] = (2, 6, 12)) -> Function:
    """Splits images into n, c, r (rows of patches), y, q (columns of patches), x; then permutes and reshapes."""
    return lambda images, p: torch.einsum(f"ncryqx->{order}", images.view(2, 3, 2, p, 3, p)).reshape(shape)


@exercise(
    inputs=lambda: (torch.randn(2, 3, 4, 6), 2),
    mistakes={
        "a reshape alone cuts across the patches: split both sides, then permute": cut("ncryqx"),
        "each patch is a column: make it a row, (N, patches, C·p·p)": lambda images, p: F.unfold(images, p, stride=p),
        "within a patch the channels come last: keep them in front, as a convolution's weight has them": cut("nrqyxc"),
        "the patches run down the columns: count them row by row, as we read": cut("nqrcyx"),
        "within a patch, rows and columns are swapped": cut("nrqcxy"),
        "each channel is cut by itself: a patch holds all its channels": cut("ncrqyx", shape=(2, 18, 4)),
        "the images run together: keep N as the first dimension": cut("nrqcyx", shape=(12, 12)),
    },
)
def patchify(images: Tensor, patch_size: int) -> Tensor:
    return F.unfold(images, patch_size, stride=patch_size).mT


def in_front(class_token: Tensor, patches: Tensor) -> Tensor:
    return torch.stack([torch.vstack([class_token, image]) for image in patches])


@exercise(
    inputs=lambda: (torch.randn(2, 5, 4), torch.randn(4), torch.randn(6, 4)),
    mistakes={
        "the class token stands at the end: put it in front, where the model will look for it": (
            lambda x, t, p: in_front(t, x).roll(-1, dims=1) + p
        ),
        "the positional embedding is missing: without it the patches have no order": lambda x, t, p: in_front(t, x),
        "the class token is missing": lambda x, t, p: x + p[1:],
        "the class token has no place added: all P + 1 tokens get one": lambda x, t, p: in_front(t, x + p[1:]),
        "the places are shifted: the first row of positional_embedding is the class token's": (
            lambda x, t, p: in_front(t, x) + p.roll(1, dims=0)
        ),
        "the positional embedding is multiplied: add it": lambda x, t, p: in_front(t, x) * p,
        "the class token is added to each patch: it is a token of its own, so concatenate": lambda x, t, p: x + t,
    },
)
def add_class_token(patches: Tensor, class_token: Tensor, positional_embedding: Tensor) -> Tensor:
    return in_front(class_token, patches) + positional_embedding


def places_of(x: Tensor) -> Tensor:
    """(N, C, H, W) → (N, H·W, C)."""
    return x.flatten(2).mT


def mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


def scores(x: Tensor) -> Tensor:
    """(N, C, H, W) → (N, 1, H·W)."""
    return mean(x)[:, None] @ places_of(x).mT / math.sqrt(x.shape[1])


def attend(query: Callable[[Tensor], Tensor] = mean, scale: float | None = None, values: Function = places_of) -> Function:
    """torch's own attention, by default with scale 1/√C, of a query (N, C) over all places."""
    return lambda x: F.scaled_dot_product_attention(query(x)[:, None], values(x), values(x), scale=scale).squeeze(1)


@exercise(
    inputs=lambda: (torch.randn(3, 8, 2, 3),),
    mistakes={
        "all places weigh the same: this is the plain mean, which is only the query": mean,
        "the scores are not divided by √C: without it, long vectors make the softmax pick one place": attend(scale=1),
        "the scores are divided by C: divide by its square root": attend(scale=1 / 8),
        "the softmax runs over the wrong dimension: the weights of one image's places sum to 1": (
            lambda x: (scores(x).softmax(dim=0) @ places_of(x)).squeeze(1)
        ),
        "this is the sum of all places: a softmax over a dimension of size 1 gives 1, so take the last one": (
            lambda x: x.sum(dim=(2, 3))
        ),
        "the mean is among the keys and values too, as in CLIP: here they are the places alone": (
            attend(values=lambda x: torch.cat([mean(x)[:, None], places_of(x)], dim=1))
        ),
        "the softmax is missing: scores can be negative and sum to anything": lambda x: (scores(x) @ places_of(x))[:, 0],
        "the query is the first place: it is the mean of all of them": attend(lambda x: x[..., 0, 0]),
        "the query is the largest value of each channel: it is their mean": attend(lambda x: x.amax(dim=(2, 3))),
        "the weighted places are averaged: the weights sum to 1 already, so add them up": lambda x: attend()(x) / 6,
        "these are the weights: use them to add up the places": lambda x: scores(x).softmax(dim=-1).squeeze(1),
        "there is one dimension too many: one query gives one vector, (N, C)": lambda x: attend()(x)[:, None],
    },
)
def attention_pool(x: Tensor) -> Tensor:
    return attend()(x)
