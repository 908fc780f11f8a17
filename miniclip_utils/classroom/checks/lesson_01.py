"""The checks of lesson 01: reading labels, drawing a shape, holding pairs out, captions, pixels, prompt ensembles."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor

from ...data import MEAN, STD
from ...shapes import CLASS_NAMES, COLORS, SHAPES, SIZES
from .before import diagnose, exercise, solved


@exercise
def read_labels(answer: Callable[[Tensor], Tensor]) -> str | None:
    labels = torch.randperm(len(CLASS_NAMES))[:40]
    words = [list(names) for names in (SIZES, COLORS, SHAPES)]
    # The reference reads the names themselves.
    split = [CLASS_NAMES[label].split() for label in labels.tolist()]
    expected = torch.tensor([[names.index(word) for names, word in zip(words, name, strict=True)] for name in split])
    size, color, shape = expected.unbind(1)
    return diagnose(
        answer(labels.clone()),
        expected,
        {
            "the columns are in the wrong order: first the size, then the colour, then the shape": expected.flip(1),
            "colour and shape are swapped: the shape changes with every label, the colour with every eighth": torch.stack(
                [size, shape, color], dim=1
            ),
            "your colours run on through both sizes, up to 15: start again after 8, with % 8": torch.stack(
                [size, labels // 8, shape], dim=1
            ),
            "your shapes are the labels themselves: start again after 8, with % 8": torch.stack(
                [size, color, labels], dim=1
            ),
            "your numbers are fractions: // divides without them, / does not": torch.stack(
                [labels / 64, labels / 8 % 8, labels % 8], dim=1
            ),
            "each picture is a column of yours: stack along dim=1, so that it is a row": expected.T,
        },
    )


@exercise
def frame(answer: Callable[[Tensor, Tensor], Tensor]) -> str | None:
    points = torch.linspace(-1.2, 1.2, 25) + 0.02 * torch.rand(())
    x, y = torch.meshgrid(points, points, indexing="xy")
    # The reference takes the largest of four half-planes instead of absolute values.
    to_middle = torch.stack([x, -x, y, -y]).amax(dim=0) - 0.7
    expected = torch.stack([to_middle, -to_middle]).amax(dim=0) - 0.15
    return diagnose(
        answer(x, y),
        expected,
        {
            "inside and outside are swapped: a signed distance is negative where there is ink": -expected,
            "this draws a full square: the absolute value of its distance is missing, which folds it into a wall": (
                to_middle - 0.15
            ),
            "the wall is twice too thick: half of the thickness 0.3 lies on either side of the middle line": expected - 0.15,
            "the middle line has no thickness: subtract half of it": expected + 0.15,
            "this is a full square: take the absolute value of its distance, then subtract half of the thickness": to_middle,
            "this is the exact distance, which is round at the corners: take the larger of |x| and |y| there too": (
                torch.hypot(*((side.abs() - 0.7).clamp(min=0) for side in (x, y))) + to_middle.clamp(max=0)
            ).abs()
            - 0.15,
            "this draws a round ring: a square has the larger of |x| and |y| where a circle has their hypotenuse": (
                torch.hypot(x, y) - 0.7
            ).abs()
            - 0.15,
            "take the larger of |x| and |y|: the smaller one gives bars that never end": (
                torch.minimum(x.abs(), y.abs()) - 0.7
            ).abs()
            - 0.15,
            "only the right and the lower side are drawn: take the absolute values of x and y": (
                (torch.maximum(x, y) - 0.7).abs() - 0.15
            ),
        },
    )


@exercise
def hold_out(answer: Callable[[int, int], Tensor]) -> str | None:
    for n, k in [(8, 2), (5, 1), (7, 3)]:
        mask = solved(answer(n, k))
        case = f"hold_out({n}, {k})"
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = f"dtype {mask.dtype}" if isinstance(mask, Tensor) else f"type {type(mask).__name__}"
            return f"{case} is of {kind}: return a tensor of booleans, such as a comparison gives"
        if mask.shape != (n, n):
            return f"{case} has shape {tuple(mask.shape)}: one row for each colour, one column for each shape, ({n}, {n})"
        for word, lines in (("colour", mask), ("shape", mask.T)):
            for index in torch.where(lines.all(dim=1))[0].tolist():
                return f"{case} never trains {word} {index}: its word would mean nothing to the model"
        held, of_color, of_shape = int(mask.sum()), mask.sum(dim=1), mask.sum(dim=0)
        if held == n * (n - k):
            return f"{case} is the other way round: True must mark the pairs that are held out, not those that are trained"
        if held != n * k:
            return f"{case} holds out {held} pairs: {k} for each of {n} colours make {n * k}"
        for word, counts in (("colour", of_color), ("shape", of_shape)):
            if not (counts == k).all():
                index = int((counts != k).nonzero()[0])
                return f"{case} holds {word} {index} out {int(counts[index])} times, and should {k} times, like the others"
    return None


@exercise
def write_captions(answer: Callable[..., list[str]]) -> str | None:
    names, templates = ("cat", "small dog", "ship"), ("a photo of a {}.", "here is the {}.", "{}, seen from afar.")
    labels, choice = torch.tensor([[2, 0, 1, 1, 2, 0, 1], [1, 0, 2, 1, 0, 2, 0]])[:, torch.randperm(7)]
    pairs = list(zip(labels.tolist(), choice.tolist(), strict=True))
    expected = [templates[t].replace("{}", names[label]) for label, t in pairs]

    def by_position(items: Sequence[str]) -> list[str]:
        return [items[i % len(items)] for i in range(len(pairs))]

    mistakes = {
        "every picture has the first template: take the one that `choice` says": [
            templates[0].replace("{}", names[label]) for label, _ in pairs
        ],
        "the template comes from the label: `choice` says which one each picture has": [
            templates[label].replace("{}", names[label]) for label, _ in pairs
        ],
        "the name comes from `choice`: the label says what a picture shows": [
            templates[t].replace("{}", names[t]) for _, t in pairs
        ],
        "picture i has class name i: the label says which name it has": [
            templates[t].replace("{}", name) for (_, t), name in zip(pairs, by_position(names), strict=True)
        ],
        "label and choice are exchanged: the label says which name, `choice` which template": [
            templates[label].replace("{}", names[t]) for label, t in pairs
        ],
        "these are the bare names: put each into its template": [names[label] for label, _ in pairs],
        "the {} is still there: replace it by the name": [templates[t] for _, t in pairs],
        "the name stands behind the template: it replaces the {}": [f"{templates[t]} {names[label]}" for label, t in pairs],
        "a number stands where the name belongs: look it up in `class_names`": [
            templates[t].replace("{}", str(label)) for label, t in pairs
        ],
    }
    got = solved(answer(labels, choice, names, templates))
    if not isinstance(got, (list, tuple)):
        return f"it is of type {type(got).__name__}: return a list of strings"
    if others := [caption for caption in got if not isinstance(caption, str)]:
        return f"it holds something of type {type(others[0]).__name__}: each caption is one string"
    got = [caption.replace(" ,", ",") for caption in got]
    if got == expected:
        return None
    if len(got) == len(names) * len(templates):
        return "every name is in every template: each picture gets one caption, so 7 pictures have 7"
    if len(got) != len(expected):
        return f"there are {len(got)} captions for {len(expected)} pictures: each picture gets one"
    for message, captions in mistakes.items():
        if got == captions:
            return message
    if any("tensor(" in caption for caption in got):
        return "a tensor is printed into the caption: .tolist() turns it into whole numbers"
    wrong = [caption == right for caption, right in zip(got, expected, strict=True)].index(False)
    return f"caption {wrong} is {got[wrong]!r}, and should be {expected[wrong]!r}"


@exercise
def to_pixels(answer: Callable[[Tensor], Tensor]) -> str | None:
    expected = torch.randint(256, (3, 3, 4, 5), dtype=torch.uint8)
    images = TF.normalize(expected.double() / 255, MEAN, STD).float()
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)

    got = solved(answer(images.clone()))
    if isinstance(got, Tensor) and got.dtype != torch.uint8:
        if got.shape == expected.shape and (got.double() * 255 - expected.double()).abs().max() < 0.1:
            return "your values run from 0 to 1: pixels are bytes from 0 to 255, of dtype uint8"
        return f"its dtype is {got.dtype}: pixels are whole bytes, .to(torch.uint8)"
    if isinstance(got, Tensor) and got.shape == expected.shape:
        difference = (got.int() - expected.int()).flatten()
        if difference.any() and difference.min() >= -1 and difference.max() <= 0:
            return "some pixels are one too small: .to(torch.uint8) cuts the fraction off, so .round() before it"
        for message, values in {
            "the deviation is missing: `normalize` subtracts the mean and then divides by the deviation": images + mean,
            "the mean is missing: `normalize` subtracted it, so add it": images * std,
            "the steps are in the wrong order: undo the last step of `normalize` first": (images + mean) * std,
            "this normalises a second time: do the opposite of each step": (images - mean) / std,
            "mean and deviation are the other way round": images * mean + std,
        }.items():
            whole = (255 * values).round()
            # Without a clamp, what does not fit into a byte is wrapped round.
            if any(torch.equal(got, each.to(torch.uint8)) for each in (whole, whole.clamp(0, 255))):
                return message
    return diagnose(
        got,
        expected,
        {
            "almost all is black: values from 0 to 1 became bytes, which have no fractions: multiply by 255 first": (
                images * std + mean
            )
            .clamp(0, 1)
            .to(torch.uint8),
            "almost all is 0 or 1: multiply by 255 before you round": (images * std + mean).round().clamp(0, 1),
        },
    )


@exercise
def ensemble(answer: Callable[[Tensor], Tensor]) -> str | None:
    templates, classes, dim = 4, 6, 5
    # Sentences of very different length of vector, so that a missing normalisation shows.
    lengths = torch.logspace(-1, 1, templates)[torch.randperm(templates)][:, None, None]
    raw = torch.randn(templates, classes, dim) * lengths
    expected = torch.empty(classes, dim, dtype=torch.float64)
    for c in range(classes):  # the reference, one class at a time, in float64
        sentences = [raw[t, c].double() for t in range(templates)]
        total = torch.stack([vector / vector.norm() for vector in sentences]).sum(dim=0)
        expected[c] = total / total.norm()
    unit = F.normalize(raw, dim=-1)
    not_unit = "the mean is shorter than 1: normalise it again, or unsure classes get smaller scores"
    return diagnose(
        answer(raw.clone()),
        expected,
        {
            not_unit: unit.mean(dim=0),
            "the sum is not of length 1: normalise it": unit.sum(dim=0),
            "long vectors outvote short ones: normalise each sentence's vector before the mean": F.normalize(
                raw.mean(dim=0), dim=-1
            ),
            "neither the sentences' vectors nor their mean are of length 1: normalise before and after": raw.mean(dim=0),
            "you averaged over the classes: the templates are dimension 0": F.normalize(unit.mean(dim=1), dim=-1),
            "you normalised over the templates or the classes: the numbers of one vector are dimension -1": F.normalize(
                F.normalize(raw, dim=0).mean(dim=0), dim=-1
            ),
            "you normalised over the labels, the dimension 1 that F.normalize takes if you give none: dim=-1": F.normalize(
                F.normalize(raw, dim=1).mean(dim=0), dim=-1
            ),
            "this keeps one vector for each sentence: average over the templates, dimension 0": unit,
            "this uses the first template alone: average over all of them": unit[0],
        },
    )
