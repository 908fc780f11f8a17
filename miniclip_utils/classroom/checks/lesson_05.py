"""Checks of lesson 05: similarity, the loss and its gradient, temperature, targets, and a floor made by a softmax."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import exercise


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True)


@exercise(
    inputs=lambda: (torch.randn(5, 7), torch.randn(5, 6), torch.randn(7, 4), torch.randn(6, 4)),
    mistakes={
        "the L2 norm is missing: these are plain dot products, in which long vectors win": (
            lambda i, t, w_i, w_t: (i @ w_i) @ (t @ w_t).T
        ),
        "the norm is taken over the batch (dim=0): each row, one vector, needs length 1 of its own": (
            lambda i, t, w_i, w_t: unit((i @ w_i).T).T @ unit((t @ w_t).T)
        ),
        "the vectors are normalised before the projection, which then changes their lengths again": (
            lambda i, t, w_i, w_t: (unit(i) @ w_i) @ (unit(t) @ w_t).T
        ),
        "only the images are normalised: the texts keep their lengths": lambda i, t, w_i, w_t: unit(i @ w_i) @ (t @ w_t).T,
        "only the texts are normalised: the images keep their lengths": lambda i, t, w_i, w_t: (i @ w_i) @ unit(t @ w_t).T,
        "it is transposed: images are rows, texts are columns": lambda i, t, w_i, w_t: unit(t @ w_t) @ unit(i @ w_i).T,
        "a LayerNorm stands where the L2 norm belongs: it gives length √d_e, and turns the vectors": (
            lambda i, t, w_i, w_t: F.layer_norm(i @ w_i, (4,)) @ F.layer_norm(t @ w_t, (4,)).T
        ),
        "the matrix is normalised: each vector needs length 1 before they are compared": (
            lambda i, t, w_i, w_t: unit((i @ w_i) @ (t @ w_t).T)
        ),
        "these are only the N true pairs: compare every image with every text": (
            lambda i, t, w_i, w_t: (unit(i @ w_i) * unit(t @ w_t)).sum(dim=1)
        ),
    },
)
def cosine_matrix(image: Tensor, text: Tensor, image_weight: Tensor, text_weight: Tensor) -> Tensor:
    return torch.cosine_similarity((image @ image_weight)[:, None], (text @ text_weight)[None], dim=2)


def costs(logits: Tensor) -> Tensor:
    """Of each row, whose true pair stands on the diagonal: −log of its softmax."""
    return logits.exp().sum(dim=1).log() - logits.diag()


def loss(logits: Tensor) -> Tensor:
    return (costs(logits) + costs(logits.T)).mean() / 2


@exercise(
    inputs=lambda: (3 * torch.randn(6, 6),),
    mistakes={
        "one direction is missing: this is only image → text, the softmax along the rows": lambda x: costs(x).mean(),
        "one direction is missing: this is only text → image, the softmax along the columns": lambda x: costs(x.T).mean(),
        "the two directions are added, and not averaged: divide by 2": lambda x: 2 * loss(x),
        "the costs of the pairs are added up: take the mean, or it grows with the batch": lambda x: len(x) * loss(x),
        "the softmax is applied twice: `F.cross_entropy` wants logits, and takes the softmax itself": (
            lambda x: (costs(x.softmax(dim=1)) + costs(x.T.softmax(dim=1))).mean() / 2
        ),
        "the sign is turned: the loss is minus the logarithm of the probability": lambda x: -loss(x),
        "every pair has target 0: the right answer for pair i is i": (
            lambda x: -(x.log_softmax(dim=1)[:, 0] + x.log_softmax(dim=0)[0]).mean() / 2
        ),
        "the softmax is missing: without it nothing pushes the wrong pairs apart": lambda x: -x.diag().mean(),
        "it is of type float: return the tensor itself, or no gradient can flow back": lambda x: loss(x).item(),
    },
)
def symmetric_loss(logits: Tensor) -> Tensor:
    return loss(logits)


def rows(x: Tensor) -> Tensor:
    """The gradient of image → text alone: softmax minus target, along the rows."""
    return (x.softmax(dim=1) - torch.eye(len(x))) / len(x)


def gradient(x: Tensor) -> Tensor:
    return (rows(x) + rows(x.T).T) / 2


@exercise(
    inputs=lambda: (torch.randn(5, 5, dtype=torch.float64),),
    outcome=torch.no_grad()(lambda function, logits: function(logits)),  # so that autograd gives an error
    mistakes={
        "this asks autograd: write the formula instead": lambda x: torch.autograd.grad(x.logsumexp(dim=1).sum(), x),
        "one direction is missing: this is the gradient of image → text alone": rows,
        "one direction is missing: this is the gradient of text → image alone": lambda x: rows(x.T).T,
        "half of one direction is right, and the other one is missing: this is image → text": lambda x: rows(x) / 2,
        "half of one direction is right, and the other one is missing: this is text → image": lambda x: rows(x.T).T / 2,
        "the 1/N is missing: the loss is a mean over the pairs": lambda x: len(x) * gradient(x),
        "the 1/2 is missing: the loss is the mean of two directions": lambda x: 2 * gradient(x),
        "the 1/(2N) is missing: the loss is a mean over N pairs and two directions": lambda x: 2 * len(x) * gradient(x),
        "the sign is turned: softmax minus target, not target minus softmax": lambda x: -gradient(x),
        "the target is missing: subtract 1 on the diagonal, once in each direction": (
            lambda x: (x.softmax(dim=1) + x.softmax(dim=0)) / (2 * len(x))
        ),
        "the target is subtracted once, but there are two directions": lambda x: (rows(x) + x.softmax(dim=0) / len(x)) / 2,
        "the columns' part is transposed: turn logits.T.softmax(dim=1) back, or take softmax(dim=0)": (
            lambda x: (rows(x) + rows(x.T)) / 2
        ),
    },
    tolerance=1e-6,
)
def logit_gradient(logits: Tensor) -> Tensor:
    with torch.enable_grad():
        logits = logits.clone().requires_grad_()
        return torch.autograd.grad(loss(logits), logits)[0]


@exercise(
    # The last t is above the cap.
    inputs=lambda: [(2 * torch.rand(3, 4) - 1, torch.tensor(t)) for t in (math.log(1 / 0.07), 2.0, 6.0)],
    mistakes={
        "t is used as it is: it is the logarithm of the scale, so take exp(t)": lambda c, t: t * c,
        "the cap on exp(t) is missing: exp(6) is 403, and the scale stops at 100, not t": lambda c, t: t.exp() * c,
        "the cap is put on the logits: cap the scale, and negative cosines keep theirs": (
            lambda c, t: (t.exp() * c).clamp(max=100)
        ),
        "the cap is put on the logits, at both ends: cap the scale": lambda c, t: (t.exp() * c).clamp(-100, 100),
        "it divides by exp(t): t is the log of the *inverse* temperature, so multiply": lambda c, t: c / t.exp(),
        "it divides by exp(t), capped: exp(t) is the *inverse* temperature, so multiply": (
            lambda c, t: c / t.exp().clamp(max=100)
        ),
        "the scale is applied twice": lambda c, t: t.exp().clamp(max=100) ** 2 * c,
        "the cap works as a floor: take the smaller of exp(t) and 100": lambda c, t: t.exp().clamp(min=100) * c,
    },
)
def scaled_logits(cosines: Tensor, t: Tensor) -> Tensor:
    return min(math.exp(t), 100) * cosines


def same(labels: Tensor) -> Tensor:
    """1 where two labels are equal, else 0."""
    return torch.tensor([[float(a == b) for b in labels.tolist()] for a in labels.tolist()])


def others(labels: Tensor) -> Tensor:
    """1 where another pair has the same label, else 0."""
    return same(labels) - torch.eye(len(labels))


def shares(rows: Tensor) -> Tensor:
    return rows / rows.sum(dim=1, keepdim=True)


@exercise(
    inputs=lambda: (torch.tensor([2, 0, 2, 1, 2, 0])[torch.randperm(6)],),
    mistakes={
        "only the diagonal counts here: a copy of the caption is just as right": lambda labels: torch.eye(len(labels)),
        "the rows do not add up to 1: divide each by the number of its true pairs": same,
        "it is divided by the number of all true pairs: each row is a distribution of its own": (
            lambda labels: same(labels) / same(labels).sum()
        ),
        "it is divided by N: divide each row by the number of its own true pairs": lambda labels: same(labels) / len(labels),
        "the drawn pair is left out: it is true as well": lambda labels: shares(others(labels)).nan_to_num(),
        "the drawn pair is left out: it is true as well, and a row without a copy is left with 0/0": (
            lambda labels: shares(others(labels))
        ),
        "the rows have length 1: they must add up to 1, so divide by their sum": lambda labels: unit(same(labels)),
        "these are the wrong pairs: compare the labels with ==": lambda labels: shares(1 - same(labels)),
        "it is a softmax of the 0s and 1s: wrong pairs then keep a share": lambda labels: same(labels).softmax(dim=1),
    },
)
def soft_targets(labels: Tensor) -> Tensor:
    return torch.stack([row / row.sum() for row in same(labels)])


@exercise(
    inputs=lambda: [(10,), (4,)],
    mistakes={
        "it is zero, but no logit is far enough above the others for that": lambda n: 0,
        "there are n − 1 wrong classes, not one": lambda n: math.log(1 + math.exp(-n / math.sqrt(n - 1))),
        "there are n − 1 wrong classes, not n": lambda n: math.log(1 + n * math.exp(-n / math.sqrt(n - 1))),
        "the wrong classes have logit 0 here; LayerNorm makes them −1/√(n − 1)": (
            lambda n: math.log(1 + (n - 1) * math.exp(-math.sqrt(n - 1)))
        ),
        "the gap is 1 here, as if the image vector were one-hot too: LayerNorm gives it length √n": (
            lambda n: math.log(1 + (n - 1) * math.exp(-1))
        ),
        "this is the gap between the logits: the loss is ln(1 + (n − 1) · exp(−gap))": lambda n: n / math.sqrt(n - 1),
        "this is chance, ln n: here the model is perfect": math.log,
    },
)
def softmax_floor(n: int) -> float:
    # The image vector that helps class 0 most has all its variance in coordinate 0.
    image = torch.eye(n, dtype=torch.float64)[0]
    image = (image - image.mean()) / image.std(correction=0)
    return -image.log_softmax(dim=0)[0].item()
