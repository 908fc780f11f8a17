"""Checks of lesson 06: zero-shot, a smaller label set, wrong words, retrieval, Grad-CAM, the modality gap."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...shapes import CLASS_NAMES
from .before import diagnose, exercise, solved


@exercise
def probabilities(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str | None:
    images, texts, t = 0.5 * torch.randn(9, 6), 0.8 * torch.randn(12, 6), torch.tensor(math.log(5.0))
    cosines = torch.cosine_similarity(images[:, None], texts[None], dim=2)
    weights = torch.exp(5 * cosines)
    unit_images, unit_texts = (x / x.norm(dim=1, keepdim=True) for x in (images, texts))
    return diagnose(
        answer(images, texts, t),
        weights / weights.sum(dim=1, keepdim=True),
        {
            "the L2 norm is missing: these are dot products, in which long vectors win": (5 * images @ texts.T).softmax(1),
            "only the pictures are normalised: the lengths of the texts still count": (5 * unit_images @ texts.T).softmax(1),
            "only the texts are normalised: the lengths of the pictures still count": (5 * images @ unit_texts.T).softmax(1),
            "100 is the scale of OpenAI's CLIP: this model's own is exp(t)": (100 * cosines).softmax(1),
            "each class is judged by itself (sigmoid): the softmax shares out 100% among them": (5 * cosines).sigmoid(),
            "the scale is missing: bare cosines lie between −1 and 1, and their softmax is nearly flat": cosines.softmax(1),
            "t is used as it is: it is the logarithm of the scale, so take exp(t)": (t * cosines).softmax(1),
            "it divides by exp(t): the scale is the inverse temperature, so multiply": (cosines / 5).softmax(1),
            "the softmax runs over the pictures: each picture is to choose among the classes, dim=1": (5 * cosines).softmax(
                0
            ),
            "it is transposed: pictures are rows, classes are columns": (5 * cosines.T).softmax(dim=0),
            "the softmax is missing: these are the logits": 5 * cosines,
            "these are bare cosines: scale them, then take the softmax over the classes": cosines,
        },
    )


@exercise
def answer_among(answer: Callable[[Tensor, Tensor], Tensor]) -> str | None:
    similarity = 0.2 - torch.rand(12, 9)  # cosines; in some rows every allowed class is below zero
    allowed = torch.tensor([False, True, False, True, True, False, False, True, False])
    numbers = [k for k in range(9) if allowed[k]]
    expected = torch.tensor([max(numbers, key=lambda k: row[k].item()) for row in similarity])
    among = similarity[:, allowed].argmax(dim=1)
    return diagnose(
        answer(similarity.clone(), allowed.clone()),
        expected,
        {
            "the label set is not used: these are the best of all classes": similarity.argmax(dim=1),
            "these are places in the smaller table: translate them back to the numbers of the classes": among,
            "a class that is not allowed got similarity 0, which beats negative ones: use −∞": (similarity * allowed).argmax(
                1
            ),
            "it is the wrong way round: you chose among the classes that are not allowed": similarity.masked_fill(
                allowed, -math.inf
            ).argmax(1),
            "you took the best picture of each class: the best class of each picture is along dim=1": similarity.masked_fill(
                ~allowed, -math.inf
            ).argmax(0),
            "these are similarities: return the number of the class that has it": similarity[:, allowed].amax(dim=1),
        },
    )


@exercise
def wrong_words(answer: Callable[[Tensor, Tensor], Tensor]) -> str | None:
    labels = torch.randint(len(CLASS_NAMES), (90,))
    predicted = torch.where(torch.rand(90) < 0.3, labels, torch.randint(len(CLASS_NAMES), (90,)))
    # The reference compares the names word by word.
    pairs = [(CLASS_NAMES[a].split(), CLASS_NAMES[b].split()) for a, b in zip(predicted, labels, strict=True)]
    differs = torch.tensor([[one != other for one, other in zip(a, b, strict=True)] for a, b in pairs])  # (90, 3)
    expected = differs.sum(dim=0)
    return diagnose(
        answer(predicted.clone(), labels.clone()),
        expected,
        {
            "these are the right words: count where the two differ": 90 - expected,
            "the order is wrong: first the size, then the colour, then the shape": expected.flip(0),
            "colour and shape are swapped: the shape changes with every label, the colour with every eighth": expected[
                [0, 2, 1]
            ],
            "the colour counts a wrong size as well: // 8 runs on to 15, take % 8 of it": torch.stack(
                [expected[0], (predicted // 8 != labels // 8).sum(), expected[2]]
            ),
            "the shape counts every wrong answer: take % 8 of the labels first": torch.stack(
                [expected[0], expected[1], (predicted != labels).sum()]
            ),
            "these are shares: return how many": expected / 90,
            "an answer with two wrong words is left out: count each word on its own": differs[differs.sum(1) == 1].sum(0),
            "this is the number of wrong answers: it is asked word by word, three numbers": (predicted != labels).sum(),
        },
    )


@exercise
def recall(answer: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> str | None:
    similarity, k = torch.randn(97, 97), 4
    queries, candidates = torch.randint(8, (97,)), torch.randint(8, (97,))
    orders = [[j for _, j in sorted(((-cosine, j) for j, cosine in enumerate(row)))] for row in similarity.tolist()]
    hits = torch.tensor(
        [[bool(candidates[j] == query) for j in order] for order, query in zip(orders, queries, strict=True)]
    )
    places = torch.tensor([order.index(i) for i, order in enumerate(orders)])
    per_column = (queries[similarity.topk(k, dim=0).indices] == candidates).any(dim=0)
    return diagnose(
        answer(similarity.clone(), queries.clone(), candidates.clone(), k),
        hits[:, :k].any(dim=1).float().mean(),
        {
            "it counts by index: another candidate with the query's label is just as right": (places < k).float().mean(),
            "this is the share of right ones among the k (precision): one hit is enough for recall@k here": hits[:, :k]
            .float()
            .mean(),
            "all k must be right in yours: one of them is enough": hits[:, :k].all(dim=1).float().mean(),
            "this is recall@1: k is not used": hits[:, 0].float().mean(),
            "it looks at the least similar ones: the largest cosines come first": hits[:, -k:].any(dim=1).float().mean(),
            "it searches the queries of each candidate: the candidates of one are along dim=1": per_column.float().mean(),
            "this is the number of queries with a hit: return their share": hits[:, :k].any(dim=1).sum(),
            "these are the single queries: return the share of hits among them": hits[:, :k].any(dim=1),
        },
    )


@exercise
def weighted_map(answer: Callable[[Tensor, Tensor], Tensor]) -> str | None:
    activations, gradients = torch.randn(3, 5, 4, 4), torch.randn(3, 5, 4, 4)
    weights = torch.tensor([[channel.sum() / 16 for channel in image] for image in gradients])  # (N, C)
    signed = torch.einsum("nc,nchw->nhw", weights, activations)
    channels = weights[:, :, None, None] * activations
    return diagnose(
        answer(activations.clone(), gradients.clone()),
        signed.clamp(min=0),
        {
            "the ReLU is missing: what speaks against the text belongs to another map": signed,
            "the ReLU comes too early: first add up the channels, then cut off what is negative": channels.relu().sum(1),
            "the absolute value mixes what speaks for the text with what speaks against it: take the ReLU": signed.abs(),
            "the gradients are not averaged: a channel has one weight, the mean over its places": (activations * gradients)
            .sum(1)
            .relu(),
            "the gradients are added up, not averaged over the places": 16 * signed.relu(),
            "you averaged the activations: the weights are means of the gradients": (
                (activations.mean((2, 3), keepdim=True) * gradients).sum(1).relu()
            ),
            "the gradients are not used: every channel has the same weight in yours": activations.sum(1).relu(),
            "the channels are averaged: add them up": signed.relu() / 5,
            "the weights are means over all pictures: each picture has its own": (
                (gradients.mean((0, 2, 3), keepdim=True) * activations).sum(1).relu()
            ),
        },
    )


@exercise
def shift_gap(answer: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]) -> str | None:
    def unit(x: Tensor) -> Tensor:
        return x / x.norm(dim=1, keepdim=True)

    images, texts, share = unit(torch.randn(6, 4) + 1), unit(torch.randn(5, 4) - 1), 0.3
    gap = images.sum(dim=0) / 6 - texts.sum(dim=0) / 5
    moved = solved(answer(images.clone(), texts.clone(), share))
    if not isinstance(moved, (tuple, list)) or [type(part) for part in moved] != [Tensor, Tensor]:
        return "return two tensors: the pictures and the sentences, both moved"
    if [part.shape for part in moved] == [texts.shape, images.shape]:
        return "the two are swapped: first the pictures, then the sentences"
    for name, part, whole in (("pictures", moved[0], images), ("sentences", moved[1], texts)):
        if part.shape != whole.shape:
            return f"the shape of the {name} is {tuple(part.shape)}, and should be {tuple(whole.shape)}"
    to = share * F.normalize(gap, dim=0)
    middle = (share * (images - images.mean(dim=0)), share * (texts - texts.mean(dim=0)))
    return diagnose(
        torch.cat(list(moved)),
        torch.cat([unit(images - share * gap), unit(texts + share * gap)]),
        {
            "the vectors are not of length 1 afterwards: normalise again": torch.cat(
                [images - share * gap, texts + share * gap]
            ),
            "the gap grows: pictures move against it, sentences along it": torch.cat(
                [unit(images + share * gap), unit(texts - share * gap)]
            ),
            "both move the same way, so the gap stays: the sentences go in the other direction": torch.cat(
                [unit(images - share * gap), unit(texts - share * gap)]
            ),
            "only the pictures move": torch.cat([unit(images - share * gap), texts]),
            "only the sentences move": torch.cat([images, unit(texts + share * gap)]),
            "the gap is made a unit vector: it has to keep its length": torch.cat([unit(images - to), unit(texts + to)]),
            "each set moves towards its own mean: move it along the difference of the two means": torch.cat(
                [unit(images - middle[0]), unit(texts - middle[1])]
            ),
            "the share is not used: it moves by the whole gap": torch.cat([unit(images - gap), unit(texts + gap)]),
        },
    )
