"""Checks of lesson 01: reading labels, drawing a shape, holding pairs out, captions, pixels, prompt ensembles."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor

from ...data import MEAN, STD
from ...shapes import CLASS_NAMES, COLORS, SHAPES, SIZES
from . import Function, difference, examined, exercise, solved


def columns(*numbers: Tensor) -> Tensor:
    return torch.stack(numbers, dim=1)


@exercise(
    inputs=lambda: (torch.randperm(len(CLASS_NAMES))[:40],),
    mistakes={
        "the columns are in the wrong order: first the size, then the colour, then the shape": (
            lambda n: columns(n % 8, n // 8 % 8, n // 64)
        ),
        "colour and shape are swapped: the shape changes with every label, the colour with every eighth": (
            lambda n: columns(n // 64, n % 8, n // 8 % 8)
        ),
        "your colours run on through both sizes, up to 15: start again after 8, with % 8": (
            lambda n: columns(n // 64, n // 8, n % 8)
        ),
        "your shapes are the labels themselves: start again after 8, with % 8": lambda n: columns(n // 64, n // 8 % 8, n),
        "your numbers are fractions: // divides without them, / does not": lambda n: columns(n / 64, n / 8 % 8, n % 8),
        "each picture is a column of yours: stack along dim=1, so that it is a row": (
            lambda n: torch.stack([n // 64, n // 8 % 8, n % 8])
        ),
    },
)
def read_labels(labels: Tensor) -> Tensor:
    words = [list(names) for names in (SIZES, COLORS, SHAPES)]
    split = [CLASS_NAMES[label].split() for label in labels.tolist()]
    return torch.tensor([[names.index(word) for names, word in zip(words, name, strict=True)] for name in split])


def draw_points() -> tuple[Tensor, Tensor]:
    points = torch.linspace(-1.2, 1.2, 25) + 0.02 * torch.rand(())
    x, y = torch.meshgrid(points, points, indexing="xy")
    return x, y


def square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.7


def round_square(x: Tensor, y: Tensor) -> Tensor:
    """The exact distance to the square, round at its corners."""
    outside = torch.hypot((x.abs() - 0.7).clamp(min=0), (y.abs() - 0.7).clamp(min=0))
    return outside + square(x, y).clamp(max=0)


@exercise(
    inputs=draw_points,
    mistakes={
        "inside and outside are swapped: a signed distance is negative where there is ink": (
            lambda x, y: 0.15 - square(x, y).abs()
        ),
        "this draws a full square: the absolute value of its distance is missing, which folds it into a wall": (
            lambda x, y: square(x, y) - 0.15
        ),
        "the wall is twice too thick: half of the thickness 0.3 lies on either side of the middle line": (
            lambda x, y: square(x, y).abs() - 0.3
        ),
        "the middle line has no thickness: subtract half of it": lambda x, y: square(x, y).abs(),
        "this is a full square: take the absolute value of its distance, then subtract half of the thickness": square,
        "this is the exact distance, which is round at the corners: take the larger of |x| and |y| there too": (
            lambda x, y: round_square(x, y).abs() - 0.15
        ),
        "this draws a round ring: a square has the larger of |x| and |y| where a circle has their hypotenuse": (
            lambda x, y: (torch.hypot(x, y) - 0.7).abs() - 0.15
        ),
        "take the larger of |x| and |y|: the smaller one gives bars that never end": (
            lambda x, y: (torch.minimum(x.abs(), y.abs()) - 0.7).abs() - 0.15
        ),
        "only the right and the lower side are drawn: take the absolute values of x and y": (
            lambda x, y: (torch.maximum(x, y) - 0.7).abs() - 0.15
        ),
    },
)
def frame(x: Tensor, y: Tensor) -> Tensor:
    middle = torch.stack([x, -x, y, -y]).amax(dim=0) - 0.7  # the largest of four half-planes
    return torch.stack([middle, -middle]).amax(dim=0) - 0.15


def pairs_where(is_held: Callable[[Tensor, Tensor, int, int], Tensor]) -> Function:
    """colour (n, 1), shape (1, n), n and k → which pairs are held out."""
    return lambda n, k: is_held(torch.arange(n)[:, None], torch.arange(n)[None, :], n, k)


@examined(
    right=pairs_where(lambda c, s, n, k: (s - c) % n < k),
    mistakes={
        "return a tensor of booleans": pairs_where(lambda c, s, n, k: ((s - c) % n < k).int()),
        "one row for each colour": pairs_where(lambda c, s, n, k: ((s - c) % n < k).flatten()),
        "never trains colour 0": pairs_where(lambda c, s, n, k: (c < k).expand(n, n)),
        "never trains shape 0": pairs_where(lambda c, s, n, k: (s < k).expand(n, n)),
        "is the other way round": pairs_where(lambda c, s, n, k: (s - c) % n >= k),
        "holds out 8 pairs": pairs_where(lambda c, s, n, k: c == s),
        "holds out 15 pairs": pairs_where(lambda c, s, n, k: (s >= c) & (s < c + k)),
        "holds colour 0 out 4 times": pairs_where(lambda c, s, n, k: (c < 4) & (s < 4)),
        "holds shape 0 out 3 times": pairs_where(lambda c, s, n, k: (2 * c // 3 + s) % n < k),
    },
)
def hold_out(answer: Function) -> str | None:
    for n, k in [(8, 2), (5, 1), (7, 3)]:
        mask = solved(answer(n, k))
        case = f"hold_out({n}, {k})"
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = f"dtype {mask.dtype}" if isinstance(mask, Tensor) else f"type {type(mask).__name__}"
            return f"{case} is of {kind}: return a tensor of booleans, such as a comparison gives"
        if mask.shape != (n, n):
            return f"{case} has shape {tuple(mask.shape)}: one row for each colour, one column for each shape, ({n}, {n})"
        counts = {"colour": mask.sum(dim=1).tolist(), "shape": mask.sum(dim=0).tolist()}
        for word, held in counts.items():
            if n in held:
                return f"{case} never trains {word} {held.index(n)}: its word would mean nothing to the model"
        pairs = int(mask.sum())
        if pairs == n * (n - k):
            return f"{case} is the other way round: True must mark the pairs that are held out, not those that are trained"
        if pairs != n * k:
            return f"{case} holds out {pairs} pairs: {k} for each of {n} colours make {n * k}"
        for word, held in counts.items():
            for index, times in enumerate(held):
                if times != k:
                    return f"{case} holds {word} {index} out {times} times, and should {k} times, like the others"
    return None


NAMES, TEMPLATES = ("cat", "small dog", "ship"), ("a photo of a {}.", "here is the {}.", "{}, seen from afar.")


def each(caption: Callable[[int, int, int], object]) -> Function:
    """One caption for each picture, of its position, its label and its choice."""
    return lambda labels, choice, names, templates: [
        caption(i, n, t) for i, (n, t) in enumerate(zip(labels.tolist(), choice.tolist(), strict=True))
    ]


def filled(choose: Callable[[int, int, int], tuple[int, int]]) -> Function:
    """Captions of some template and some name, in the order of `choose`."""
    return each(lambda i, n, t: TEMPLATES[choose(i, n, t)[0]].format(NAMES[choose(i, n, t)[1]]))


WRONG_CAPTIONS = {
    "every picture has the first template: take the one that `choice` says": filled(lambda i, n, t: (0, n)),
    "the template comes from the label: `choice` says which one each picture has": filled(lambda i, n, t: (n, n)),
    "the name comes from `choice`: the label says what a picture shows": filled(lambda i, n, t: (t, t)),
    "picture i has class name i: the label says which name it has": filled(lambda i, n, t: (t, i % 3)),
    "label and choice are exchanged: the label says which name, `choice` which template": filled(lambda i, n, t: (n, t)),
    "these are the bare names: put each into its template": each(lambda i, n, t: NAMES[n]),
    "the {} is still there: replace it by the name": each(lambda i, n, t: TEMPLATES[t]),
    "the name stands behind the template: it replaces the {}": each(lambda i, n, t: f"{TEMPLATES[t]} {NAMES[n]}"),
    "a number stands where the name belongs: look it up in `class_names`": each(lambda i, n, t: TEMPLATES[t].format(n)),
}


def right_captions(labels: Tensor, choice: Tensor, class_names: Sequence[str], templates: Sequence[str]) -> list[str]:
    return [class_names[n].join(templates[t].split("{}")) for n, t in zip(labels.tolist(), choice.tolist(), strict=True)]


@examined(
    right=right_captions,
    mistakes={
        **WRONG_CAPTIONS,
        "return a list of strings": lambda *arguments: iter(right_captions(*arguments)),
        "each caption is one string": each(lambda i, n, t: (TEMPLATES[t], NAMES[n])),
        "every name is in every template": lambda *_: [template.format(name) for template in TEMPLATES for name in NAMES],
        "there are 3 captions for 7 pictures": lambda *_: TEMPLATES,
        "a tensor is printed into the caption": each(lambda i, n, t: TEMPLATES[t].format(str(torch.tensor(n)))),
        "and should be": filled(lambda i, n, t: (t, -n)),
    },
)
def write_captions(answer: Function) -> str | None:
    labels, choice = torch.tensor([[2, 0, 1, 1, 2, 0, 1], [1, 0, 2, 1, 0, 2, 0]])[:, torch.randperm(7)]
    got = solved(answer(labels.clone(), choice.clone(), NAMES, TEMPLATES))
    if not isinstance(got, (list, tuple)):
        return f"it is of type {type(got).__name__}: return a list of strings"
    if others := [caption for caption in got if not isinstance(caption, str)]:
        return f"it holds something of type {type(others[0]).__name__}: each caption is one string"
    got = [caption.replace(" ,", ",") for caption in got]
    if len(got) == len(NAMES) * len(TEMPLATES):
        return "every name is in every template: each picture gets one caption, so 7 pictures have 7"
    if len(got) != len(labels):
        return f"there are {len(got)} captions for {len(labels)} pictures: each picture gets one"
    for message, mistake in WRONG_CAPTIONS.items():
        if got == mistake(labels, choice, NAMES, TEMPLATES):
            return message
    if any("tensor(" in caption for caption in got):
        return "a tensor is printed into the caption: .tolist() turns it into whole numbers"
    for index, (caption, right) in enumerate(zip(got, right_captions(labels, choice, NAMES, TEMPLATES), strict=True)):
        if caption != right:
            return f"caption {index} is {caption!r}, and should be {right!r}"
    return None


mean, std = (torch.tensor(channels).view(3, 1, 1) for channels in (MEAN, STD))


def as_bytes(values: Tensor) -> Tensor:
    return (255 * values).round().to(torch.uint8)


# Normalised images → what should be values from 0 to 1.
WRONG_VALUES: dict[str, Function] = {
    "the deviation is missing: `normalize` subtracts the mean and then divides by the deviation": lambda x: x + mean,
    "the mean is missing: `normalize` subtracted it, so add it": lambda x: x * std,
    "the steps are in the wrong order: undo the last step of `normalize` first": lambda x: (x + mean) * std,
    "this normalises a second time: do the opposite of each step": lambda x: (x - mean) / std,
    "mean and deviation are the other way round": lambda x: x * mean + std,
    "almost all is black: values from 0 to 1 became bytes, which have no fractions: multiply by 255 first": (
        lambda x: (x * std + mean).trunc() / 255
    ),
    "almost all is 0 or 1: multiply by 255 before you round": lambda x: (x * std + mean).round() / 255,
}


@examined(
    right=lambda x: as_bytes(x * std + mean),
    mistakes={
        "your values run from 0 to 1": lambda x: x * std + mean,
        "its dtype is torch.float32": lambda x: (255 * (x * std + mean)).round(),
        "some pixels are one too small": lambda x: (255 * (x * std + mean)).to(torch.uint8),
        **{message: lambda x, wrong=wrong: as_bytes(wrong(x)) for message, wrong in WRONG_VALUES.items()},
    },
)
def to_pixels(answer: Function) -> str | None:
    expected = torch.randint(255, (3, 3, 4, 5), dtype=torch.uint8)  # no 255, which rounding errors can leave below 1
    images = TF.normalize(expected.double() / 255, MEAN, STD).float()
    got = solved(answer(images.clone()))
    if isinstance(got, Tensor) and got.dtype != torch.uint8:
        if got.shape == expected.shape and (255 * got.double() - expected).abs().max() < 0.1:
            return "your values run from 0 to 1: pixels are bytes from 0 to 255, of dtype uint8"
        return f"its dtype is {got.dtype}: pixels are whole bytes, .to(torch.uint8)"
    if isinstance(got, Tensor) and got.shape == expected.shape:
        change = got.int() - expected.int()
        if change.min() == -1 and change.max() <= 0:
            return "some pixels are one too small: .to(torch.uint8) cuts the fraction off, so .round() before it"
        for message, wrong in WRONG_VALUES.items():
            # Without a clamp, what does not fit into a byte is wrapped round.
            if any(torch.equal(got, as_bytes(values)) for values in (wrong(images), wrong(images).clamp(0, 1))):
                return message
    return difference(got, expected)


def unit(vectors: Tensor, dim: int = -1) -> Tensor:
    return F.normalize(vectors, dim=dim)


@exercise(
    # Sentences' vectors of very different length, so that a missing normalisation shows.
    inputs=lambda: (torch.randn(4, 6, 5) * torch.logspace(-1, 1, 4)[torch.randperm(4)][:, None, None],),
    mistakes={
        "the mean is shorter than 1: normalise it again, or unsure classes get smaller scores": lambda t: unit(t).mean(0),
        "the sum is not of length 1: normalise it": lambda t: unit(t).sum(dim=0),
        "long vectors outvote short ones: normalise each sentence's vector before the mean": lambda t: unit(t.mean(dim=0)),
        "neither the sentences' vectors nor their mean are of length 1: normalise before and after": lambda t: t.mean(dim=0),
        "you averaged over the classes: the templates are dimension 0": lambda t: unit(unit(t).mean(dim=1)),
        "you normalised over the templates or the classes: the numbers of one vector are dimension -1": (
            lambda t: unit(unit(t, dim=0).mean(dim=0))
        ),
        "you normalised over the labels, the dimension 1 that F.normalize takes if you give none: dim=-1": (
            lambda t: unit(unit(t, dim=1).mean(dim=0))
        ),
        "this keeps one vector for each sentence: average over the templates, dimension 0": unit,
        "this uses the first template alone: average over all of them": lambda t: unit(t)[0],
    },
)
def ensemble(text_features: Tensor) -> Tensor:
    total = (text_features / text_features.norm(dim=-1, keepdim=True)).sum(dim=0)
    return total / total.norm(dim=-1, keepdim=True)
