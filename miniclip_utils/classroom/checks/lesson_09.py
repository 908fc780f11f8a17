"""Checks of lesson 09: recall by class, similarity maps, intersection over union, what a gap allows."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data import normalize
from ...evaluate import recall_at_k as package_recall_at_k
from ...explain import intersection_over_union as package_intersection_over_union
from ...explain import similarity_map as package_similarity_map
from ...explain import upsample
from ...model import MiniCLIP, ModelConfig
from . import Function, exercise


def ranking(similarity: Tensor) -> Tensor:
    """The candidates of each query, the most similar first: (Q, M)."""
    rows = similarity.tolist()
    return torch.tensor([sorted(range(len(row)), key=row.__getitem__, reverse=True) for row in rows])


def hits(similarity: Tensor, queries: Tensor, candidates: Tensor) -> Tensor:
    """Whether the candidates of each query have its label, the most similar first: bool (Q, M)."""
    return candidates[ranking(similarity)] == queries[:, None]


def share(right: Tensor) -> float:
    return right.double().mean().item()


def found(similarity: Tensor, queries: Tensor, candidates: Tensor, k: int) -> float:
    return share(hits(similarity, queries, candidates)[:, :k].any(dim=1))


def without_limit(similarity: Tensor, queries: Tensor, candidates: Tensor, k: int) -> float:
    nearest = similarity.topk(k, dim=1).indices
    return share((candidates[nearest] == queries[:, None]).any(dim=1))


@exercise(
    inputs=lambda: {
        "": (torch.randn(97, 97), torch.randint(3, (97,)), torch.randint(3, (97,)), 2),
        "with 3 candidates and k = 5": (torch.randn(9, 3), torch.randint(4, (9,)), torch.tensor([0, 1, 1]), 5),
    },
    package=package_recall_at_k,
    mistakes={
        "it counts by index: another candidate with the query's label is just as right": (
            lambda s, q, c, k: share((ranking(s)[:, :k] == torch.arange(len(s))[:, None]).any(dim=1))
        ),
        "this is the fraction of right ones among the k (precision): one hit is enough for recall@k here": (
            lambda s, q, c, k: share(hits(s, q, c)[:, :k])
        ),
        "all k must be right in yours: one of them is enough": lambda s, q, c, k: share(hits(s, q, c)[:, :k].all(dim=1)),
        "this is recall@1: k is not used": lambda s, q, c, k: found(s, q, c, 1),
        "it looks at the least similar ones: the largest cosines come first": lambda s, q, c, k: found(-s, q, c, k),
        "it searches the queries of each candidate: the candidates of one query are along dim=1": (
            lambda s, q, c, k: found(s.T, c, q, k)
        ),
        "this is the number of queries with a hit: return their fraction": lambda s, q, c, k: len(s) * found(s, q, c, k),
        "these are the single queries: return the fraction with a hit": lambda s, q, c, k: hits(s, q, c)[:, :k].any(1),
        "topk asks for more candidates than there are: take the smaller of k and their number": without_limit,
        "no query has a hit in yours: compare the labels of the nearest with the query's, not cosines": lambda *_: 0.0,
    },
    keeps_arguments=True,
)
def recall_at_k(similarity: Tensor, query_labels: Tensor, candidate_labels: Tensor, k: int) -> float:
    return found(similarity, query_labels, candidate_labels, k)


def draw_model() -> list[tuple[MiniCLIP, Tensor, Tensor]]:
    """A small ResNet whose width equals its embed_dim, in training mode; a text for each picture, or one for all."""
    config = ModelConfig(embed_dim=12, resnet_stem_width=4, resnet_widths=(6, 8, 12), text_width=8, text_layers=1)
    model = MiniCLIP(config, 9, 6)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    images = torch.randint(256, (3, 3, 32, 48), dtype=torch.uint8)
    return [(model, images, F.normalize(torch.randn(n, 12), dim=1)) for n in (3, 1)]


def without_gradient(function: Function, *arguments: object) -> object:
    result = function(*arguments)
    tied = isinstance(result, Tensor) and result.requires_grad
    return WITH_GRADIENT if tied else result


WITH_GRADIENT = "it carries a gradient, and cannot be drawn: keep the line @torch.no_grad()"


@torch.no_grad()
def features(model: MiniCLIP, pixels: Tensor, project: bool = True, rectify: bool = True) -> Tensor:
    """The feature of each position, in evaluation mode: (N, h, w, D)."""
    tower: Any = model.eval().image_encoder
    stem = tower.stem(pixels)
    positions = tower.stages(stem.relu() if rectify else stem).permute(0, 2, 3, 1)
    return positions @ model.image_projection.weight.T if project else positions


def with_texts(vectors: Tensor, texts: Tensor) -> Tensor:
    """Dot products of each position with its picture's text."""
    return torch.einsum("nhwd,nd->nhw", vectors, texts.expand(len(vectors), -1))


def map_of(vectors: Callable[[MiniCLIP, Tensor], Tensor]) -> Function:
    """The cosines of some features of the positions, made of the model and uint8 images."""
    return lambda model, images, texts: with_texts(F.normalize(vectors(model, images), dim=3), texts)


own_features = map_of(lambda model, images: features(model, normalize(images)))


def mean_norm(model: MiniCLIP, images: Tensor, texts: Tensor) -> Tensor:
    vectors = features(model, normalize(images))
    return with_texts(vectors, texts) / vectors.mean(dim=(1, 2)).norm(dim=1)[:, None, None]


def of_the_mean(model: MiniCLIP, images: Tensor, texts: Tensor) -> Tensor:
    return F.cosine_similarity(features(model, normalize(images)).mean(dim=(1, 2)), texts)


@torch.no_grad()
def in_training(model: MiniCLIP, images: Tensor, texts: Tensor) -> Tensor:
    tower: Any = model.train().image_encoder
    stem = tower.stem(normalize(images)).relu()
    vectors = model.image_projection(tower.stages(stem).movedim(1, 3))
    return with_texts(F.normalize(vectors, dim=3), texts)


@exercise(
    inputs=draw_model,
    outcome=without_gradient,
    package=package_similarity_map,
    mistakes={
        "the projection is missing: these are cosines of the tower's own features": (
            map_of(lambda model, images: features(model, normalize(images), project=False))
        ),
        "the ReLU between stem and stages is missing": (
            map_of(lambda model, images: features(model, normalize(images), rectify=False))
        ),
        "the pixels are not normalised: the tower expects normalize(images)": (
            map_of(lambda model, images: features(model, images.float()))
        ),
        "the pixels are divided by 255, which is not all that normalize does": (
            map_of(lambda model, images: features(model, images / 255))
        ),
        "these are dot products: divide by the norm of each position's own feature": (
            lambda model, images, texts: with_texts(features(model, normalize(images)), texts)
        ),
        "it divides by the norm of the mean: each position's feature has a norm of its own": mean_norm,
        "the positions are averaged: this is the cosine of the whole picture": of_the_mean,
        "height and width are swapped": lambda *arguments: own_features(*arguments).transpose(1, 2),
        "it is enlarged already: return a cosine for each position, upsample comes later": (
            lambda model, images, texts: upsample(own_features(model, images, texts), (32, 48))
        ),
        "BatchNorm is in training mode: compute inside `with evaluating(model):`": in_training,
        WITH_GRADIENT: lambda model, images, texts: own_features(model, images, texts).requires_grad_(),
    },
)
def similarity_map(model: MiniCLIP, images: Tensor, text_features: Tensor) -> Tensor:
    return own_features(model, images, text_features)


def scaled(maps: Tensor) -> Tensor:
    return torch.stack([(one - one.min()) / max(float(one.max() - one.min()), 1e-12) for one in maps])


def draw_maps() -> tuple[Tensor, Tensor, float]:
    """Smooth maps of different height, one of them flat, and boxes."""
    maps = upsample(torch.randn(6, 4, 4), 32) * (1 + torch.arange(6.0))[:, None, None] + torch.randn(6, 1, 1)
    maps[5] = 0.5
    masks = torch.zeros(6, 32, 32, dtype=torch.bool)
    for mask in masks:
        top, left = torch.randint(16, (2,)).tolist()
        mask[top : top + 12, left : left + 9] = True
    return maps, masks, 0.6


def compare(score: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """A score (N,) of what a map marks, and the mask."""
    return lambda maps, masks, threshold: score(scaled(maps) > threshold, masks)


def count(pixels: Tensor) -> Tensor:
    return pixels.flatten(1).sum(dim=1)


def union(marked: Tensor, masks: Tensor) -> Tensor:
    return count(marked & masks) / count(marked | masks)


@exercise(
    inputs=draw_maps,
    package=package_intersection_over_union,
    mistakes={
        "it divides by the mask alone: a map that marks everything then scores 1": (
            compare(lambda marked, masks: count(marked & masks) / count(masks))
        ),
        "it divides by the marked pixels alone: a single right pixel then scores 1": (
            compare(lambda marked, masks: count(marked & masks) / count(marked).clamp(min=1))
        ),
        "pixels in both are counted twice below: the union counts each pixel once": (
            compare(lambda marked, masks: count(marked & masks) / (count(marked) + count(masks)))
        ),
        "this is the Dice coefficient: the union counts each pixel once": (
            compare(lambda marked, masks: 2 * count(marked & masks) / (count(marked) + count(masks)))
        ),
        "this is the fraction of pixels on which both agree: background that both leave out does not count": (
            compare(lambda marked, masks: count(marked == masks) / 1024)
        ),
        "the maps are not scaled: put each on a scale from its lowest value, 0, to its highest, 1": (
            lambda maps, masks, threshold: union(maps > threshold, masks)
        ),
        "all maps share one scale: each has its own lowest and highest value": (
            lambda maps, masks, threshold: union((maps - maps.min()) / (maps.max() - maps.min()) > threshold, masks)
        ),
        "the maps are divided by their maximum: subtract the lowest value first": (
            lambda maps, masks, threshold: union(maps / maps.amax((1, 2), True) > threshold, masks)
        ),
        "it marks what lies below the threshold": lambda maps, masks, threshold: union(scaled(maps) <= threshold, masks),
        "this is the mean over the maps: return one number for each": compare(lambda *both: union(*both).mean()),
    },
)
def intersection_over_union(maps: Tensor, masks: Tensor, threshold: float) -> Tensor:
    return union(scaled(maps) > threshold, masks)


@exercise(
    inputs=lambda: [(0.3,), (0.72,), (1.25,)],
    mistakes={
        "half of the squared distance is subtracted: gap² / 2": lambda gap: 1 - gap / 2,
        "‖I − T‖² is 2 − 2 cos, so the gap's square is halved": lambda gap: 1 - gap**2,
        "the gap is the whole distance, not half of it": lambda gap: 1 - 2 * gap**2,
        "this is the distance that remains: solve 2 − 2 cos = gap² for the cosine": lambda gap: 2 - gap**2,
        "this is not the cosine but its distance from 1: gap² / 2 is subtracted from 1": lambda gap: gap**2 / 2,
        "the distance of unit vectors is a chord, not an angle": lambda gap: math.cos(gap),
        "the gap is no sine: use the squared distance of two unit vectors": lambda gap: math.sqrt(abs(1 - gap**2)),
    },
    tolerance=1e-5,
)
def largest_cosine(gap: float) -> float:
    return math.fsum([1.0, -gap * gap / 2])
