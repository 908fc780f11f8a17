"""Checks of lesson 04: patches, the Vision Transformer and its size, attention pooling."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import image_encoder
from . import Function, exercise, solved


def cut(order: str, shape: tuple[int, ...] = (2, 6, -1)) -> Function:
    """Splits images into n, c, r (rows of patches), y, q (columns of patches), x; then permutes and reshapes."""
    return lambda images, p: torch.einsum(f"ncryqx->{order}", images.reshape(2, 3, 2, p, 3, p)).reshape(shape)


@exercise(
    inputs=lambda: [(torch.randn(2, 3, 4, 6), 2), (torch.randn(2, 3, 6, 9), 3)],
    mistakes={
        "a reshape alone cuts across the patches: split both sides, then permute": cut("ncryqx"),
        "the channels are apart, but a run of pixels along a row is no square: split the rows and the columns": (
            lambda images, p: images.reshape(2, 3, 6, p * p).transpose(1, 2).reshape(2, 6, -1)
        ),
        "each patch is a column: make it a row, (N, patches, C·p·p)": lambda images, p: F.unfold(images, p, stride=p),
        "within a patch the channels come last: keep them in front, as a convolution's weight has them": cut("nrqyxc"),
        "the patches run down the columns: count them row by row, as we read": cut("nqrcyx"),
        "within a patch, rows and columns are swapped": cut("nrqcxy"),
        "each channel is cut by itself: a patch holds all its channels": cut("ncrqyx", shape=(2, 18, -1)),
        "the images run together: keep N as the first dimension": cut("nrqcyx", shape=(12, -1)),
        "the grid is kept: its rows and columns become one dimension of patches": cut("nrqcyx", shape=(2, 2, 3, -1)),
        "each patch is kept as a picture: flatten it to C·p·p numbers": (
            lambda images, p: cut("nrqcyx")(images, p).unflatten(2, (3, p, p))
        ),
    },
)
def patchify(images: Tensor, patch_size: int) -> Tensor:
    patches = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)  # (N, C, rows, columns, p, p)
    return patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def in_front(x: Tensor, token: Tensor) -> Tensor:
    return torch.stack([torch.vstack([token, image]) for image in x])


class Steps(image_encoder.VisionTransformer):
    """The steps of the forward pass, each of which a mistake can replace."""

    def patches(self, images: Tensor) -> Tensor:
        weight = self.patch_embedding.weight  # (width, 3, p, p)
        return patchify.right(images, weight.shape[-1]) @ weight.flatten(1).T

    def join(self, x: Tensor) -> Tensor:
        return in_front(x, self.class_token)

    def enter(self, x: Tensor) -> Tensor:
        return self.norm_in(x + self.positional_embedding)

    def mix(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x

    def read(self, x: Tensor) -> Tensor:
        return self.norm_out(x[:, 0])

    def forward(self, images: Tensor) -> Tensor:
        return self.read(self.mix(self.enter(self.join(self.patches(images)))))


def tower(**steps: Callable[[Steps, Tensor], Tensor]) -> type[Steps]:
    """A tower in which some steps are others."""
    return type("Tower", (Steps,), steps)


def feature(build: Function, sizes: tuple[int, ...], images: Tensor) -> object:
    """What a tower of these sizes makes of images, with weights drawn name by name."""
    model = solved(build(*sizes))
    if not isinstance(model, nn.Module):
        return model
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(images))
        for _, parameter in sorted(model.named_parameters()):
            parameter.copy_(0.5 * torch.randn(parameter.shape))
        return solved(model(images))


def first_then_rest(x: Tensor, position: Tensor) -> Tensor:
    """Adds a positional embedding to the patches alone."""
    return torch.cat([x[:, :1], x[:, 1:] + position[1:]], dim=1)


@exercise(
    # image_size, patch_size, width, layers, num_heads
    inputs=lambda: [((8, 4, 8, 2, 2), torch.randn(3, 3, 8, 8)), ((9, 3, 6, 3, 1), torch.randn(2, 3, 9, 9))],
    outcome=feature,
    package=image_encoder.VisionTransformer,
    mistakes={
        "the class token stands at the end, and the feature is read at index 0, which is the first patch: "
        "put it in front": tower(join=lambda self, x: in_front(x, self.class_token).roll(-1, dims=1)),
        "the class token stands at the end: put it in front, since row 0 of the positional embedding is its own": (
            tower(
                join=lambda self, x: in_front(x, self.class_token).roll(-1, dims=1),
                read=lambda self, x: self.norm_out(x[:, -1]),
            )
        ),
        "norm_in is missing: it comes before the first block": tower(enter=lambda self, x: x + self.positional_embedding),
        "the positional embedding is added after norm_in: the sum is what norm_in normalises": (
            tower(enter=lambda self, x: self.norm_in(x) + self.positional_embedding)
        ),
        "the positional embedding is missing: without it the patches have no order": tower(
            enter=lambda self, x: self.norm_in(x)
        ),
        "the class token has no positional embedding: all 1 + patches tokens have one": (
            tower(enter=lambda self, x: self.norm_in(first_then_rest(x, self.positional_embedding)))
        ),
        "the positional embeddings are shifted by one: row 0 is the class token's": (
            tower(enter=lambda self, x: self.norm_in(x + self.positional_embedding.roll(-1, dims=0)))
        ),
        "the positional embedding is multiplied: add it": (
            tower(enter=lambda self, x: self.norm_in(x * self.positional_embedding))
        ),
        "norm_in and norm_out are exchanged": (
            tower(
                enter=lambda self, x: self.norm_out(x + self.positional_embedding),
                read=lambda self, x: self.norm_in(x[:, 0]),
            )
        ),
        "norm_out is missing: the feature passes it at the end": tower(read=lambda self, x: x[:, 0]),
        "these are the features of all tokens: return the class token's, (N, width)": (
            tower(read=lambda self, x: self.norm_out(x))
        ),
        "it keeps an axis of size 1: one feature for each image is (N, width)": (
            tower(read=lambda self, x: self.norm_out(x[:, :1]))
        ),
        "the feature is the mean or the sum of all tokens: read it at the class token, index 0": (
            tower(read=lambda self, x: self.norm_out(x.mean(dim=1)))
        ),
        "the feature is the mean or the sum of the patches: read it at the class token, index 0": (
            tower(read=lambda self, x: self.norm_out(x[:, 1:].mean(dim=1)))
        ),
        "the feature is read at index 1, the first patch: the class token is index 0": (
            tower(read=lambda self, x: self.norm_out(x[:, 1]))
        ),
        "the feature is read at the last patch: the class token is index 0": (
            tower(read=lambda self, x: self.norm_out(x[:, -1]))
        ),
        "this is the first image alone: `x[:, 0]` is the first token of each image": (
            tower(read=lambda self, x: self.norm_out(x[0]))
        ),
        "the blocks are not used": tower(mix=lambda self, x: x),
        "each block reads the input of the first: hand on what the block before it returned, `x = block(x)`": (
            tower(mix=lambda self, x: self.blocks[-1](x))
        ),
        "only the first block is used": tower(mix=lambda self, x: self.blocks[0](x)),
        "what the blocks return is added to their input once more: their shortcuts have done that": (
            tower(mix=lambda self, x: x + Steps.mix(self, x))
        ),
        "the patches run down the columns: `flatten(2)` counts them row by row": (
            tower(patches=lambda self, images: self.patch_embedding(images).mT.flatten(2).mT)
        ),
    },
)
class VisionTransformer(Steps):
    pass


def count(*parts: nn.Module) -> int:
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def reckon(
    tokens: Callable[[int, int], int] = lambda image, patch: (image // patch) ** 2 + 1,
    rows: int = 0,
    **changes: Callable[[int, int], int],
) -> Function:
    """Tokens and parameters, with some terms replaced.

    Args:
        rows: how many more positional embeddings there are than tokens.
        changes: "block" or "embedding" or "rest", of width and patch size.
    """
    terms: dict[str, Callable[[int, int], int]] = {
        "embedding": lambda w, p: 3 * p * p * w,
        "block": lambda w, p: 12 * w * w + 13 * w,
        "rest": lambda w, p: w + 4 * w,  # class token, two LayerNorms
        **changes,
    }

    def size(image_size: int, patch_size: int, width: int, layers: int) -> tuple[int, int]:
        n = tokens(image_size, patch_size)
        embedding, block, rest = (terms[name](width, patch_size) for name in ("embedding", "block", "rest"))
        return n, embedding + (n + rows) * width + layers * block + rest

    return size


@exercise(
    inputs=lambda: [(32, 4, 64, 4), (48, 16, 24, 2), (56, 14, 40, 3)],
    mistakes={
        "the class token is missing: it is a token, a row of the positional embedding, and a vector of its own": (
            reckon(lambda image, patch: (image // patch) ** 2, rest=lambda w, p: 4 * w)
        ),
        "the class token is missing among the tokens": reckon(lambda image, patch: (image // patch) ** 2),
        "there are `width` parameters too few: the class token has a vector of its own, and a row in the positional "
        "embedding": reckon(rows=-1),
        "a patch is counted along one side: the patches fill rows and columns, (image_size / patch_size)²": (
            reckon(lambda image, patch: image // patch + 1)
        ),
        "norm_in and norm_out are missing: a gain and a bias each, 4 · width": reckon(rest=lambda w, p: w),
        "there are 2 · width parameters too few: norm_in and norm_out have a gain and a bias each, and the class token has "
        "a vector and a position": (reckon(rest=lambda w, p: w + 2 * w)),
        "a patch has three channels: its embedding has 3 · patch_size² · width weights": (
            reckon(embedding=lambda w, p: p * p * w)
        ),
        "the patch embedding has no bias": reckon(embedding=lambda w, p: 3 * p * p * w + w),
        "the patch embedding is missing": reckon(embedding=lambda w, p: 0),
        "the patch embedding is one matrix for all patches: do not multiply it by their number": (
            lambda i, p, w, layers: (
                (i // p) ** 2 + 1,
                reckon()(i, p, w, layers)[1] + ((i // p) ** 2 - 1) * 3 * p * p * w,
            )
        ),
        "the blocks' biases and LayerNorms are missing: 13 · width in each": reckon(block=lambda w, p: 12 * w * w),
        "there is one block too few: all `layers` of them count": (lambda i, p, w, layers: reckon()(i, p, w, layers - 1)),
        "the positional embedding is missing": (
            lambda i, p, w, layers: (
                (i // p) ** 2 + 1,
                reckon()(i, p, w, layers)[1] - ((i // p) ** 2 + 1) * w,
            )
        ),
        "the blocks share their weights among the tokens: do not multiply them by the number of tokens": (
            lambda i, p, w, layers: (
                (i // p) ** 2 + 1,
                reckon()(i, p, w, layers)[1] + (i // p) ** 2 * layers * (12 * w * w + 13 * w),
            )
        ),
    },
    tolerance=1e-12,
)
def vit_size(image_size: int, patch_size: int, width: int, layers: int) -> tuple[int, int]:
    tokens = len(range(0, image_size, patch_size)) ** 2 + 1
    block = nn.TransformerEncoderLayer(width, 1, 4 * width, device="meta")
    embedding = nn.Conv2d(3, width, patch_size, bias=False, device="meta")
    norms = nn.LayerNorm(width, device="meta"), nn.LayerNorm(width, device="meta")
    positions = nn.Embedding(tokens + 1, width, device="meta")  # the class token's own vector is one more row
    return tokens, count(embedding, *norms, positions) + layers * count(block)


def mean(patches: Tensor) -> Tensor:
    return patches.mean(dim=1)


def scores(patches: Tensor) -> Tensor:
    """(N, P, D) → (N, 1, P)."""
    return mean(patches)[:, None] @ patches.mT / math.sqrt(patches.shape[2])


def attend(query: Callable[[Tensor], Tensor] = mean, scale: float | None = None, values: Function = lambda x: x) -> Function:
    """torch's own attention, by default with scale 1/√D, of a query (N, D) over all patches."""
    return lambda x: F.scaled_dot_product_attention(query(x)[:, None], values(x), values(x), scale=scale).squeeze(1)


@exercise(
    inputs=lambda: {"": (torch.randn(3, 6, 8),), "for a single image": (torch.randn(1, 9, 4),)},
    mistakes={
        "all patches weigh the same: this is the plain mean, which is only the query": mean,
        "the scores are not divided by √D: without it, large vectors make the softmax pick one patch": attend(scale=1),
        "the scores are divided by D: divide by its square root": attend(scale=1 / 8),
        "the scores are divided by the root of the number of patches: it is the root of D": attend(scale=6**-0.5),
        "the softmax runs over the wrong dimension: the weights of one image's patches sum to 1": (
            lambda x: (scores(x).softmax(dim=0) @ x).squeeze(1)
        ),
        "this is the sum of all patches: a softmax over a dimension of size 1 gives 1, so take the one of size P": (
            lambda x: x.sum(dim=1)
        ),
        "the mean is among the keys and values too, as in CLIP: here they are the patches alone": (
            attend(values=lambda x: torch.cat([mean(x)[:, None], x], dim=1))
        ),
        "the softmax is missing: scores can be negative and sum to anything": lambda x: (scores(x) @ x)[:, 0],
        "the query is the first patch: it is the mean of all of them": attend(lambda x: x[:, 0]),
        "the query is the largest value of each feature: it is their mean": attend(lambda x: x.amax(dim=1)),
        "the query is the sum of the patches: it is their mean": attend(lambda x: x.sum(dim=1)),
        "each patch is a query, and the results are averaged: there is one query, the mean": (
            lambda x: F.scaled_dot_product_attention(x, x, x).mean(dim=1)
        ),
        "the weighted patches are averaged: the weights sum to 1 already, so add them up": lambda x: attend()(x) / 6,
        "these are the weights: use them to add up the patches": lambda x: scores(x).softmax(dim=-1).squeeze(1),
        "there is one dimension too many: one query gives one vector, (N, D)": lambda x: attend()(x)[:, None],
    },
)
def attention_pool(patches: Tensor) -> Tensor:
    return attend()(patches)
