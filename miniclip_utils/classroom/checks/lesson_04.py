"""Checks of lesson 04: similarity, the loss and its gradient, temperature, targets, and a floor made by a softmax."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from . import diagnose, exercise, number, solved


@exercise
def cosine_matrix(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> str | None:
    image, text = torch.randn(5, 7), torch.randn(5, 6)  # I_f, T_f
    image_weight, text_weight = torch.randn(7, 4), torch.randn(6, 4)  # W_i, W_t
    i, t = image @ image_weight, text @ text_weight
    i_unit, t_unit = i / i.norm(dim=1, keepdim=True), t / t.norm(dim=1, keepdim=True)
    across = (i / i.norm(dim=0)) @ (t / t.norm(dim=0)).T
    early = (image / image.norm(dim=1, keepdim=True) @ image_weight) @ (
        text / text.norm(dim=1, keepdim=True) @ text_weight
    ).T
    return diagnose(
        answer(image, text, image_weight, text_weight),
        torch.cosine_similarity(i[:, None], t[None], dim=2),
        {
            "the L2 norm is missing: these are plain dot products, in which long vectors win": i @ t.T,
            "the norm is taken over the batch (dim=0): each row, one vector, needs length 1 of its own": across,
            "the vectors are normalised before the projection, which then changes their lengths again": early,
            "only the images are normalised: the texts keep their lengths": i_unit @ t.T,
            "only the texts are normalised: the images keep their lengths": i @ t_unit.T,
            "it is transposed: images are rows, texts are columns": t_unit @ i_unit.T,
            "a LayerNorm stands where the L2 norm belongs: it gives length √d_e, and turns the vectors": (
                F.layer_norm(i, (4,)) @ F.layer_norm(t, (4,)).T
            ),
            "the matrix is normalised: each vector needs length 1 before they are compared": F.normalize(i @ t.T, dim=1),
            "these are only the N true pairs: compare every image with every text": (i_unit * t_unit).sum(dim=1),
        },
    )


@exercise
def symmetric_loss(answer: Callable[[Tensor], Tensor]) -> str | None:
    logits = 3 * torch.randn(6, 6)
    rows = -(logits.diag() - logits.exp().sum(dim=1).log())
    columns = -(logits.diag() - logits.exp().sum(dim=0).log())
    twice = [-(p.diag() - p.exp().sum(dim=1).log()).mean() for p in (logits.softmax(1), logits.T.softmax(1))]
    both = rows.mean() + columns.mean()
    got = solved(answer(logits))
    if not isinstance(got, Tensor):
        return f"it is of type {type(got).__name__}: return the tensor itself, or no gradient can flow back"
    return diagnose(
        got,
        both / 2,
        {
            "one direction is missing: this is only image → text, the softmax along the rows": rows.mean(),
            "one direction is missing: this is only text → image, the softmax along the columns": columns.mean(),
            "the two directions are added, and not averaged: divide by 2": both,
            "the costs of the pairs are added up: take the mean, or it grows with the batch": (rows + columns).sum() / 2,
            "the softmax is applied twice: `F.cross_entropy` wants logits, and takes the softmax itself": sum(twice) / 2,
            "the sign is turned: the loss is minus the logarithm of the probability": -both / 2,
            "every pair has target 0: the right answer for pair i is i": -(
                logits.log_softmax(dim=1)[:, 0].mean() + logits.log_softmax(dim=0)[0].mean()
            )
            / 2,
            "the softmax is missing: without it nothing pushes the wrong pairs apart": -logits.diag().mean(),
        },
    )


@exercise
def logit_gradient(answer: Callable[[Tensor], Tensor]) -> str | None:
    logits = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    loss = (logits.logsumexp(dim=1) + logits.logsumexp(dim=0) - 2 * logits.diag()).mean() / 2
    (expected,) = torch.autograd.grad(loss, logits)
    values = logits.detach()
    n, target = len(values), torch.eye(len(values), dtype=values.dtype)
    rows, columns = values.softmax(dim=1) - target, values.softmax(dim=0) - target
    try:
        with torch.no_grad():
            got = answer(values.clone())
    except RuntimeError as error:
        if "does not require grad" in str(error):
            return "this asks autograd: write the formula instead"
        raise
    return diagnose(
        got,
        expected,
        {
            "one direction is missing: this is the gradient of image → text alone": rows / n,
            "one direction is missing: this is the gradient of text → image alone": columns / n,
            "half of one direction is right, and the other one is missing: this is image → text": rows / (2 * n),
            "half of one direction is right, and the other one is missing: this is text → image": columns / (2 * n),
            "the 1/N is missing: the loss is a mean over the pairs": (rows + columns) / 2,
            "the 1/2 is missing: the loss is the mean of two directions": (rows + columns) / n,
            "the 1/(2N) is missing: the loss is a mean over N pairs and two directions": rows + columns,
            "the sign is turned: softmax minus target, not target minus softmax": -expected,
            "the target is missing: subtract 1 on the diagonal, once in each direction": expected + target / n,
            "the target is subtracted once, but there are two directions": expected + target / (2 * n),
            "the columns' part is transposed: turn logits.T.softmax(dim=1) back, or take softmax(dim=0)": (
                (rows + columns.T) / (2 * n)
            ),
        },
        tolerance=1e-6,
    )


@exercise
def scaled_logits(answer: Callable[[Tensor, Tensor], Tensor]) -> str | None:
    cosines = 2 * torch.rand(3, 4) - 1
    logs = [torch.tensor(math.log(1 / 0.07)), torch.tensor(2.0), torch.tensor(6.0)]  # the last one above the cap
    got = [solved(answer(cosines.clone(), t.clone())) for t in logs]
    for logits in got:
        if not isinstance(logits, Tensor):
            return f"it is of type {type(logits).__name__}: return a tensor"
        if logits.shape != cosines.shape:
            return f"its shape is {tuple(logits.shape)}, and should be {tuple(cosines.shape)}"

    def by(*scales: float) -> Tensor:
        return torch.stack([scale * cosines for scale in scales])

    scales = [t.exp().item() for t in logs]
    capped = [min(scale, 100) for scale in scales]
    return diagnose(
        torch.stack(got),
        by(*capped),
        {
            "t is used as it is: it is the logarithm of the scale, so take exp(t)": by(*(t.item() for t in logs)),
            "the cap on exp(t) is missing: exp(6) is 403, and the scale stops at 100, not t": by(*scales),
            "the cap is put on the logits: cap the scale, and negative cosines keep theirs": by(*scales).clamp(max=100),
            "the cap is put on the logits, at both ends: cap the scale": by(*scales).clamp(-100, 100),
            "it divides by exp(t): t is the log of the *inverse* temperature, so multiply": by(*(1 / s for s in scales)),
            "it divides by exp(t), capped: exp(t) is the *inverse* temperature, so multiply": by(*(1 / s for s in capped)),
            "the scale is applied twice": by(*(s * s for s in capped)),
            "the cap works as a floor: take the smaller of exp(t) and 100": by(*(max(s, 100) for s in scales)),
        },
    )


@exercise
def soft_targets(answer: Callable[[Tensor], Tensor]) -> str | None:
    labels = torch.tensor([2, 0, 2, 1, 2, 0])[torch.randperm(6)]
    n = len(labels)
    same = torch.tensor([[float(a == b) for b in labels.tolist()] for a in labels.tolist()])
    others = same - torch.eye(n)
    return diagnose(
        answer(labels),
        torch.stack([row / row.sum() for row in same]),
        {
            "only the diagonal counts here: a copy of the caption is just as right": torch.eye(n),
            "the rows do not add up to 1: divide each by the number of its true pairs": same,
            "it is divided by the number of all true pairs: each row is a distribution of its own": same / same.sum(),
            "it is divided by N: divide each row by the number of its own true pairs": same / n,
            "the drawn pair is left out: it is true as well": torch.stack([r / r.sum().clamp(min=1) for r in others]),
            "the drawn pair is left out: it is true as well, and a row without a copy is left with 0/0": torch.stack(
                [r / r.sum() for r in others]
            ),
            "the rows have length 1: they must add up to 1, so divide by their sum": F.normalize(same, dim=1),
            "these are the wrong pairs: compare the labels with ==": torch.stack([(1 - r) / (1 - r).sum() for r in same]),
            "it is a softmax of the 0s and 1s: wrong pairs then keep a share": same.softmax(dim=1),
        },
    )


@exercise
def softmax_floor(answer: Callable[[int], float]) -> str | None:
    sizes = (10, 4)
    got = torch.tensor([number(answer(n)) for n in sizes], dtype=torch.float64)

    def least(gap: Callable[[int], float], others: Callable[[int], float] = lambda n: n - 1) -> Tensor:
        return torch.tensor([math.log(1 + others(n) * math.exp(-gap(n))) for n in sizes], dtype=torch.float64)

    best = []
    for n in sizes:  # the image vector that helps class 0 most: all its variance in coordinate 0
        image = torch.eye(n, dtype=torch.float64)[0]
        image = (image - image.mean()) / image.std(correction=0)
        best.append(-image.log_softmax(dim=0)[0])
    return diagnose(
        got,
        torch.stack(best),
        {
            "it is zero, but no logit is far enough above the others for that": torch.zeros(len(sizes)),
            "there are n − 1 wrong classes, not one": least(lambda n: n / math.sqrt(n - 1), lambda n: 1),
            "there are n − 1 wrong classes, not n": least(lambda n: n / math.sqrt(n - 1), lambda n: n),
            "the wrong classes have logit 0 here; LayerNorm makes them −1/√(n − 1)": least(lambda n: math.sqrt(n - 1)),
            "the gap is 1 here, as if the image vector were one-hot too: LayerNorm gives it length √n": least(lambda n: 1),
            "this is the gap between the logits: the loss is ln(1 + (n − 1) · exp(−gap))": torch.tensor(
                [n / math.sqrt(n - 1) for n in sizes]
            ),
            "this is chance, ln n: here the model is perfect": torch.tensor([math.log(n) for n in sizes]),
        },
    )
