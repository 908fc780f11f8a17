"""Checks of lesson 08: zero-shot, a smaller label set, wrong words, retrieval, Grad-CAM, the modality gap."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...evaluate import recall_at_k
from ...shapes import CLASS_NAMES
from . import Function, exercise, solved


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True)


def cosines(images: Tensor, texts: Tensor) -> Tensor:
    return torch.cosine_similarity(images[:, None], texts[None], dim=2)


def chances(logits: Tensor) -> Tensor:
    return torch.exp(logits - logits.logsumexp(dim=1, keepdim=True))


def choose(score: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Function:
    """The softmax over the classes of some logits, made of pictures, classes and exp(t)."""
    return lambda images, classes, t: chances(score(images, classes, t.exp()))


@exercise(
    inputs=lambda: (0.5 * torch.randn(9, 6), 0.8 * torch.randn(12, 6), torch.tensor(math.log(5.0))),
    mistakes={
        "the L2 norm is missing: these are dot products, in which long vectors win": choose(lambda i, c, s: s * i @ c.T),
        "only the pictures are normalised: the lengths of the texts still count": choose(lambda i, c, s: s * unit(i) @ c.T),
        "only the texts are normalised: the lengths of the pictures still count": choose(lambda i, c, s: s * i @ unit(c).T),
        "100 is the scale of OpenAI's CLIP: this model's own is exp(t)": choose(lambda i, c, s: 100 * cosines(i, c)),
        "each class is judged by itself (sigmoid): the softmax shares out 100% among them": (
            lambda i, c, t: 1 / (1 + torch.exp(-t.exp() * cosines(i, c)))
        ),
        "the scale is missing: bare cosines lie between −1 and 1, and their softmax is nearly flat": (
            choose(lambda i, c, s: cosines(i, c))
        ),
        "t is used as it is: it is the logarithm of the scale, so take exp(t)": lambda i, c, t: chances(t * cosines(i, c)),
        "it divides by exp(t): the scale is the inverse temperature, so multiply": choose(lambda i, c, s: cosines(i, c) / s),
        "the softmax runs over the pictures: each picture is to choose among the classes, dim=1": (
            lambda i, c, t: chances(t.exp() * cosines(c, i)).T
        ),
        "it is transposed: pictures are rows, classes are columns": lambda i, c, t: chances(t.exp() * cosines(i, c)).T,
        "the softmax is missing: these are the logits": lambda i, c, t: t.exp() * cosines(i, c),
        "these are bare cosines: scale them, then take the softmax over the classes": lambda i, c, t: cosines(i, c),
    },
)
def probabilities(images: Tensor, texts: Tensor, t: Tensor) -> Tensor:
    return chances(math.exp(t) * cosines(images, texts))


@exercise(
    # Cosines: in some rows every allowed class is below zero.
    inputs=lambda: (0.2 - torch.rand(12, 9), torch.tensor([False, True, False, True, True, False, False, True, False])),
    mistakes={
        "the label set is not used: these are the best of all classes": lambda s, a: s.argmax(1),
        "these are places in the smaller table: translate them back to the numbers of the classes": (
            lambda s, a: s[:, a].argmax(1)
        ),
        "a class that is not allowed got similarity 0, which beats negative ones: use −∞": lambda s, a: (s * a).argmax(1),
        "it is the wrong way round: you chose among the classes that are not allowed": (
            lambda s, a: s.masked_fill(a, -math.inf).argmax(1)
        ),
        "you took the best picture of each class: the best class of each picture is along dim=1": (
            lambda s, a: s.masked_fill(~a, -math.inf).argmax(0)
        ),
        "these are similarities: return the number of the class that has it": lambda s, a: s[:, a].amax(1),
    },
)
def answer_among(similarity: Tensor, allowed: Tensor) -> Tensor:
    numbers = allowed.nonzero().flatten()
    return numbers[similarity[:, numbers].argmax(dim=1)]


def draw_answers() -> tuple[Tensor, Tensor]:
    """Predicted labels, about a third of them right, and the true ones."""
    labels, others = torch.randint(len(CLASS_NAMES), (2, 90))
    return torch.where(torch.rand(90) < 0.3, labels, others), labels


def differ(predicted: Tensor, labels: Tensor) -> Tensor:
    """Where the names of two classes differ, word by word: bool (N, 3)."""
    pairs = zip(predicted.tolist(), labels.tolist(), strict=True)
    words = [(CLASS_NAMES[one].split(), CLASS_NAMES[other].split()) for one, other in pairs]
    return torch.tensor([[a != b for a, b in zip(one, other, strict=True)] for one, other in words], device=labels.device)


@exercise(
    inputs=draw_answers,
    mistakes={
        "these are the right words: count where the two differ": lambda p, q: (~differ(p, q)).sum(dim=0),
        "the order is wrong: first the size, then the colour, then the shape": lambda p, q: differ(p, q).sum(dim=0).flip(0),
        "colour and shape are swapped: the shape changes with every label, the colour with every eighth": (
            lambda p, q: differ(p, q).sum(dim=0)[[0, 2, 1]]
        ),
        "the colour counts a wrong size as well: // 8 runs on to 15, take % 8 of it": (
            lambda p, q: torch.stack([p // 64 != q // 64, p // 8 != q // 8, p % 8 != q % 8]).sum(dim=1)
        ),
        "the shape counts every wrong answer: take % 8 of the labels first": (
            lambda p, q: torch.stack([p // 64 != q // 64, p // 8 % 8 != q // 8 % 8, p != q]).sum(dim=1)
        ),
        "these are shares: return how many": lambda p, q: differ(p, q).float().mean(dim=0),
        "an answer with two wrong words is left out: count each word on its own": (
            lambda p, q: (differ(p, q) & (differ(p, q).sum(dim=1, keepdim=True) == 1)).sum(dim=0)
        ),
        "this is the number of wrong answers: it is asked word by word, three numbers": lambda p, q: (p != q).sum(),
    },
)
def wrong_words(predicted: Tensor, labels: Tensor) -> Tensor:
    return differ(predicted, labels).sum(dim=0)


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


@exercise(
    inputs=lambda: (torch.randn(97, 97), torch.randint(8, (97,)), torch.randint(8, (97,)), 4),
    package=recall_at_k,
    mistakes={
        "it counts by index: another candidate with the query's label is just as right": (
            lambda s, q, c, k: share((ranking(s)[:, :k] == torch.arange(len(s))[:, None]).any(dim=1))
        ),
        "this is the share of right ones among the k (precision): one hit is enough for recall@k here": (
            lambda s, q, c, k: share(hits(s, q, c)[:, :k])
        ),
        "all k must be right in yours: one of them is enough": lambda s, q, c, k: share(hits(s, q, c)[:, :k].all(dim=1)),
        "this is recall@1: k is not used": lambda s, q, c, k: found(s, q, c, 1),
        "it looks at the least similar ones: the largest cosines come first": lambda s, q, c, k: found(-s, q, c, k),
        "it searches the queries of each candidate: the candidates of one are along dim=1": (
            lambda s, q, c, k: found(s.T, c, q, k)
        ),
        "this is the number of queries with a hit: return their share": lambda s, q, c, k: len(s) * found(s, q, c, k),
        "these are the single queries: return the share of hits among them": lambda s, q, c, k: hits(s, q, c)[:, :k].any(1),
    },
)
def recall(similarity: Tensor, query_labels: Tensor, candidate_labels: Tensor, k: int) -> float:
    return found(similarity, query_labels, candidate_labels, k)


def weights(gradients: Tensor) -> Tensor:
    return gradients.mean(dim=(2, 3), keepdim=True)


def cam(weighted: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """The ReLU of the sum of weighted channels, made of activations and gradients."""
    return lambda a, g: weighted(a, g).sum(dim=1).relu()


@exercise(
    inputs=lambda: (torch.randn(3, 5, 4, 4), torch.randn(3, 5, 4, 4)),
    mistakes={
        "the ReLU is missing: what speaks against the text belongs to another map": lambda a, g: (weights(g) * a).sum(dim=1),
        "the ReLU comes too early: first add up the channels, then cut off what is negative": (
            cam(lambda a, g: (weights(g) * a).relu())
        ),
        "the absolute value mixes what speaks for the text with what speaks against it: take the ReLU": (
            lambda a, g: (weights(g) * a).sum(dim=1).abs()
        ),
        "the gradients are not averaged: a channel has one weight, the mean over its places": cam(lambda a, g: g * a),
        "the gradients are added up, not averaged over the places": cam(lambda a, g: g.sum((2, 3), keepdim=True) * a),
        "you averaged the activations: the weights are means of the gradients": cam(lambda a, g: weights(a) * g),
        "the gradients are not used: every channel has the same weight in yours": cam(lambda a, g: a),
        "the channels are averaged: add them up": lambda a, g: (weights(g) * a).mean(dim=1).relu(),
        "the weights are means over all pictures: each picture has its own": cam(lambda a, g: weights(g).mean(0) * a),
    },
)
def weighted_map(activations: Tensor, gradients: Tensor) -> Tensor:
    means = gradients.flatten(2).sum(dim=2) / gradients[0, 0].numel()  # (N, C)
    return torch.einsum("nc,nchw->nhw", means, activations).clamp(min=0)


def gap(images: Tensor, texts: Tensor) -> Tensor:
    return images.mean(dim=0) - texts.mean(dim=0)


def move(images: Tensor, texts: Tensor, share: float | Tensor) -> tuple[Tensor, Tensor]:
    step = share * gap(images, texts)
    return F.normalize(images - step, dim=1), F.normalize(texts + step, dim=1)


def both_sets(function: Function, images: Tensor, texts: Tensor, share: float) -> object:
    """All results that are no pair of tensors are one mistake."""
    moved = solved(function(images, texts, share))
    if not isinstance(moved, (tuple, list)) or [type(part) for part in moved] != [Tensor, Tensor]:
        return "no pair"
    return dict(zip(("pictures", "sentences"), moved, strict=True))


@exercise(
    inputs=lambda: (unit(torch.randn(6, 4) + 1), unit(torch.randn(5, 4) - 1), 0.3),
    outcome=both_sets,
    mistakes={
        "return two tensors: the pictures and the sentences, both moved": lambda i, t, s: move(i, t, s)[0],
        "the two are swapped: first the pictures, then the sentences": lambda i, t, s: move(t, i, s),
        "the vectors are not of length 1 afterwards: normalise again": (
            lambda i, t, s: (i - s * gap(i, t), t + s * gap(i, t))
        ),
        "the gap grows: pictures move against it, sentences along it": lambda i, t, s: move(i, t, -s),
        "both move the same way, so the gap stays: the sentences go in the other direction": (
            lambda i, t, s: (move(i, t, s)[0], move(i, t, -s)[1])
        ),
        "only the pictures move": lambda i, t, s: (move(i, t, s)[0], t),
        "only the sentences move": lambda i, t, s: (i, move(i, t, s)[1]),
        "the gap is made a unit vector: it has to keep its length": lambda i, t, s: move(i, t, s / gap(i, t).norm()),
        "each set moves towards its own mean: move it along the difference of the two means": (
            lambda i, t, s: (unit(i - s * (i - i.mean(dim=0))), unit(t - s * (t - t.mean(dim=0))))
        ),
        "the share is not used: it moves by the whole gap": lambda i, t, s: move(i, t, 1),
    },
)
def shift_gap(images: Tensor, texts: Tensor, share: float) -> tuple[Tensor, Tensor]:
    return move(images, texts, share)
