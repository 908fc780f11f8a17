"""Checks of lesson 08: the accuracy, probabilities, an interval, a sign test, a score that fits."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ... import evaluate
from ...data import ImageTextDataset, normalize
from ...tokenizer import WordTokenizer
from . import CHANGED, Function, examined, exercise, solved

NAMES = ("cat", "dog", "ship", "moon", "tree")
TEMPLATES = ("a photo of a {}.", "the {}, here", "{} and more")


class Towers(nn.Module):
    """Features of a picture's mean colours, and of a text's words. In training mode they are noisy."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.colors, self.words = nn.Linear(3, 6, bias=False), nn.EmbeddingBag(vocab_size, 6)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def noise(self, features: Tensor) -> Tensor:
        return features + 5 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0)) * self.training

    def encode_image(self, images: Tensor) -> Tensor:
        return self.noise(self.colors(images.mean(dim=(2, 3))))

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.noise(self.words(tokens))


def draw_runs() -> list[tuple]:
    """A run and 150 pictures, whose classes have another order than those of the run's training."""
    captions = [template.replace("{}", name) for template in TEMPLATES for name in NAMES]
    tokenizer = WordTokenizer.from_captions(captions)
    config = SimpleNamespace(templates=TEMPLATES, class_names=NAMES[::-1])
    run = SimpleNamespace(model=Towers(len(tokenizer)), tokenizer=tokenizer, config=config, metrics=None)
    images = torch.randint(256, (150, 3, 1, 1), dtype=torch.uint8).expand(150, 3, 4, 4).contiguous()
    dataset = ImageTextDataset(images, torch.randint(5, (150,)), NAMES)
    return [(run, dataset), (run, dataset, None), (run, dataset, TEMPLATES[1:])]


def accuracy_by(
    default: Function = lambda config: config.templates[:1],
    names: Function = lambda run, dataset: dataset.class_names,
    images: Function = normalize,
    given: bool = True,
    norm: bool = True,
    answers: Function = lambda cosines: cosines.argmax(dim=1),
    outcome: Function = lambda right: right.double().mean().item(),
) -> Function:
    """An answer with its steps, one of them changed."""

    def answer(run: SimpleNamespace, dataset: ImageTextDataset, templates: tuple[str, ...] | None = None) -> object:
        templates = default(run.config) if templates is None or not given else templates
        texts = torch.zeros(1)
        with torch.no_grad():
            run.model.eval()
            for template in templates:
                captions = [template.replace("{}", name) for name in names(run, dataset)]
                texts = texts + nn.functional.normalize(run.model.encode_text(run.tokenizer(captions)), dim=1)
            pictures = run.model.encode_image(images(dataset.images))
        texts = texts / texts.norm(dim=1, keepdim=True)
        if not norm:
            texts = texts * torch.arange(1, 6)[:, None]
        return outcome(answers(pictures @ texts.T) == dataset.labels)

    return answer


@exercise(
    inputs=draw_runs,
    package=evaluate.zero_shot_accuracy,
    mistakes={
        "without templates it uses all of the run's: use the first one, config.templates[:1]": accuracy_by(
            default=lambda config: config.templates
        ),
        "the templates that are given are not used": accuracy_by(given=False),
        "these are the names of the run's training: the labels count in dataset.class_names": accuracy_by(
            names=lambda run, dataset: run.config.class_names
        ),
        "the images are not prepared: encode_images normalises the bytes as in training": accuracy_by(
            images=lambda images: images / 255
        ),
        "you took the best picture of each class: the best class of each picture is along dim=1": accuracy_by(
            answers=lambda cosines: cosines.argmax(dim=0)
        ),
        "no picture is right: argmax needs dim=1, or there is one index for the whole matrix": accuracy_by(
            answers=lambda cosines: cosines.argmax()
        ),
        "it takes the least similar class: argmax, not argmin": accuracy_by(answers=lambda cosines: cosines.argmin(dim=1)),
        "this is the fraction of errors: return that of correct answers": accuracy_by(
            outcome=lambda right: 1 - right.double().mean().item()
        ),
        "this is the number of correct answers: return their fraction": accuracy_by(
            outcome=lambda right: right.sum().item()
        ),
        "this is in percent: return a number between 0 and 1": accuracy_by(
            outcome=lambda right: 100 * right.double().mean().item()
        ),
        "these are the single pictures: return the fraction of them that is correct": accuracy_by(
            outcome=lambda right: right
        ),
    },
)
def zero_shot_accuracy(run: SimpleNamespace, dataset: ImageTextDataset, templates: tuple[str, ...] | None = None) -> float:
    return accuracy_by()(run, dataset, templates)


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True)


def cosines(images: Tensor, texts: Tensor) -> Tensor:
    return torch.cosine_similarity(images[:, None], texts[None], dim=2)


def softmax(logits: Tensor) -> Tensor:
    return torch.exp(logits - logits.logsumexp(dim=1, keepdim=True))


def choose(score: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Function:
    """The softmax over the classes of some logits, made of pictures, classes and exp(t)."""
    return lambda images, classes, t: softmax(score(images, classes, t.exp()))


@exercise(
    inputs=lambda: (0.5 * torch.randn(9, 6), 0.8 * torch.randn(12, 6), torch.tensor(math.log(5.0))),
    mistakes={
        "the softmax still runs over the pictures: each picture chooses among the classes, dim=1": (
            lambda i, c, t: softmax(t.exp() * cosines(c, i)).T
        ),
        "the softmax runs over everything: each picture's probabilities add up to 1": (
            lambda i, c, t: (t.exp() * cosines(i, c)).flatten().softmax(0).view(len(i), len(c))
        ),
        "the L2 norm is missing: these are dot products, in which long vectors win": choose(lambda i, c, s: s * i @ c.T),
        "only the pictures are normalised: the norms of the texts still count": choose(lambda i, c, s: s * unit(i) @ c.T),
        "only the texts are normalised: the norms of the pictures still count": choose(lambda i, c, s: s * i @ unit(c).T),
        "100 is the scale of OpenAI's CLIP: this model's own is exp(t)": choose(lambda i, c, s: 100 * cosines(i, c)),
        "each class is judged by itself (sigmoid): the softmax distributes 100% among them": (
            lambda i, c, t: 1 / (1 + torch.exp(-t.exp() * cosines(i, c)))
        ),
        "the scale is missing: bare cosines lie between −1 and 1, and their softmax is nearly flat": (
            choose(lambda i, c, s: cosines(i, c))
        ),
        "t is used as it is: it is the logarithm of the scale, so take exp(t)": lambda i, c, t: softmax(t * cosines(i, c)),
        "it divides by exp(t): the scale is the inverse temperature, so multiply": choose(lambda i, c, s: cosines(i, c) / s),
        "it is transposed: pictures are rows, classes are columns": lambda i, c, t: softmax(t.exp() * cosines(i, c)).T,
        "the softmax is missing: these are the logits": lambda i, c, t: t.exp() * cosines(i, c),
        "these are bare cosines: scale them, then take the softmax over the classes": lambda i, c, t: cosines(i, c),
        "these are logarithms: softmax instead of log_softmax": lambda i, c, t: softmax(t.exp() * cosines(i, c)).log(),
    },
    keeps_arguments=True,
)
def probabilities(images: Tensor, texts: Tensor, t: Tensor) -> Tensor:
    return softmax(math.exp(t) * cosines(images, texts))


def wilson(correct: int, n: int, z: float = 1.96) -> tuple[float, float]:
    center, half = wilson_parts(correct, n, z)
    return center - half, center + half


def wilson_parts(correct: int, n: int, z: float) -> tuple[float, float]:
    """The middle of the interval, and half its width."""
    center = (correct + z * z / 2) / (n + z * z)
    return center, z / (n + z * z) * math.sqrt(correct * (n - correct) / n + z * z / 4)


def around(correct: int, n: int, half: float) -> tuple[float, float]:
    return correct / n - half, correct / n + half


def error(correct: int, n: int) -> float:
    return math.sqrt(correct / n * (1 - correct / n) / n)


def two_ends(function: Function, *arguments: object) -> object:
    ends = solved(function(*arguments))
    ends = ends.tolist() if isinstance(ends, Tensor) else list(ends) if hasattr(ends, "__iter__") else [ends]
    return [float(end) for end in ends] if len(ends) == 2 else "return two numbers: the lower end and the upper end"


@exercise(
    inputs=lambda: [(1988, 2000), (2000, 2000), (int(torch.randint(40, 60, ())), 80), (0, 10), (19, 20), (15, 20, 1.0)],
    outcome=two_ends,
    tolerance=1e-5,
    mistakes={
        "p is replaced by p̂ under the root: with no errors this gives ± 0; solve the quadratic equation": (
            lambda k, n, z=1.96: around(k, n, z * error(k, n))
        ),
        "the ends are cut at 0 and 1, but p̂ still replaces p under the root: solve the quadratic equation": (
            lambda k, n, z=1.96: (max(0.0, k / n - z * error(k, n)), min(1.0, k / n + z * error(k, n)))
        ),
        "the width is right, but the middle is not p̂: the interval reaches further towards 50%": (
            lambda k, n, z=1.96: around(k, n, wilson_parts(k, n, z)[1])
        ),
        "z is not used: 1.96 standard deviations, not one": lambda k, n, z=1.96: wilson(k, n, 1.0),
        "z is always 1.96 in yours: use the argument": lambda k, n, z=1.96: wilson(k, n),
        "z is not squared: the equation has z² / n": lambda k, n, z=1.96: wilson(k, n, math.sqrt(z)),
        "the ends are swapped: the lower one comes first": lambda k, n, z=1.96: wilson(k, n, z)[::-1],
        "these are percent: return numbers between 0 and 1": lambda k, n, z=1.96: tuple(100 * x for x in wilson(k, n, z)),
        "these are the middle and the half width: return both ends": lambda k, n, z=1.96: wilson_parts(k, n, z),
        "return two numbers: the lower end and the upper end": lambda k, n, z=1.96: wilson(k, n, z)[0],
        "these are counts: divide by n": lambda k, n, z=1.96: tuple(n * x for x in wilson(k, n, z)),
    },
)
def wilson_interval(correct: int, n: int, z: float = 1.96) -> tuple[float, float]:
    return wilson(correct, n, z)


def draw_pairs() -> list[tuple[Tensor, Tensor]]:
    """Two models' results on the same pictures: some disagreements, very few, none, and equally many on both sides."""

    def results(both: int, one: int, other: int, neither: int) -> tuple[Tensor, Tensor]:
        of = torch.tensor(
            [[True, True]] * both + [[True, False]] * one + [[False, True]] * other + [[False, False]] * neither
        )
        of = of[torch.randperm(len(of))]
        return of[:, 0], of[:, 1]

    few = int(torch.randint(3, 6, ()))
    return [
        results(50, 12, few, 9),
        results(60, 2, 3 + few, 4),
        results(70, 0, 3, 2),
        results(40, 0, 0, 6),
        results(9, 5, 5, 8),
        results(20, 60, 35, 10),  # more tosses than a 64-bit number can count the ways of
    ]


def split(one: Tensor, other: Tensor) -> tuple[int, int]:
    return int((one & ~other).sum()), int((other & ~one).sum())


def tosses(ways: Callable[[int, int, int], bool]) -> Function:
    """The probability of those numbers of heads k that `ways(k, b, c)` counts."""

    def answer(one: Tensor, other: Tensor) -> float:
        b, c = split(one, other)
        return sum(math.comb(b + c, k) for k in range(b + c + 1) if ways(k, b, c)) / 2 ** (b + c)

    return answer


def normal(one: Tensor, other: Tensor) -> float:
    b, c = split(one, other)
    return math.erfc(abs(b - c) / math.sqrt(2 * (b + c))) if b + c else 1.0


def of_tensors(one: Tensor, other: Tensor) -> float:
    """Right, but b and c are tensors still, so that 2 ** (b + c) leaves a 64-bit number."""
    b, c = (one & ~other).sum(), (other & ~one).sum()
    ways: Any = sum(math.comb(int(b + c), k) for k in range(int(min(b, c)) + 1))
    return min(1.0, float(2 * ways / 2 ** (b + c)))


def doubled(one: Tensor, other: Tensor) -> float:
    return 2 * tosses(lambda k, b, c: k <= min(b, c))(one, other)


def unpaired(one: Tensor, other: Tensor) -> float:
    """A coin for each error of either model, shared ones included."""
    b, c = int((~one).sum()), int((~other).sum())
    return min(1.0, 2 * sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c))


@exercise(
    inputs=draw_pairs,
    tolerance=1e-6,
    mistakes={
        "only one direction counts in yours: c : b is as uneven as b : c": lambda o, p: min(
            1.0, tosses(lambda k, b, c: k <= min(b, c))(o, p)
        ),
        "this depends on the order of the two: a split is as uneven in either direction": tosses(lambda k, b, c: k <= b),
        "b = c gives more than 1: the two tails overlap, so a probability is at most 1": doubled,
        "the split itself is left out: it is at least as uneven as itself": tosses(
            lambda k, b, c: abs(2 * k - b - c) > abs(b - c)
        ),
        "this is the probability of exactly this split: add the more uneven ones": tosses(lambda k, b, c: k == b),
        "this is the probability of a more even split: subtract it from 1": tosses(
            lambda k, b, c: abs(2 * k - b - c) < abs(b - c)
        ),
        "this is the normal approximation: with few tosses, count": normal,
        "errors that both make are counted: only pictures on which they disagree are tosses": unpaired,
        "this is the split: return the probability": split,
        "b and c are tensors, whose numbers have 64 bits, too few for 2 ** 95: take .item()": of_tensors,
    },
)
def sign_test(one: Tensor, other: Tensor) -> float:
    return tosses(lambda k, b, c: abs(2 * k - b - c) >= abs(b - c))(one, other)


def draw_cosines() -> tuple[Tensor, Tensor]:
    """Cosines with 24 labels of 240 pictures, about half of which fit one, and the others none; and which ones fit.

    As in the lesson they go down to nearly −1, so that a length or a spread of the cosines says little.
    """
    rows = (0.5 * torch.randn(240, 24) - 0.1).clamp(-0.95, 0.6)
    fits = torch.rand(240) < 0.5
    own = torch.randint(24, (240,))
    rows[torch.arange(240)[fits], own[fits]] = 0.85 + 0.1 * torch.rand(int(fits.sum()))
    return rows, fits


def beats(scores: Tensor, fits: Tensor) -> float:
    """The probability that a picture that fits has the higher score."""
    above = scores[fits][:, None] - scores[~fits][None]
    return ((above > 0).double() + 0.5 * (above == 0)).mean().item()


@examined(
    right=lambda rows: rows.amax(dim=1),
    mistakes={
        "these are the numbers of the best labels: a score says how well they fit": lambda rows: rows.argmax(dim=1),
        "these are values and indices, both": lambda rows: rows.max(dim=1),
        "this is one score for each label, (24,): one for each picture is along dim=1": lambda rows: rows.amax(dim=0),
        "return one score for each picture, a tensor of shape (240,)": lambda rows: rows.amax(),
        "the score is low where a label fits: turn its sign round": lambda rows: -rows.amax(dim=1),
        "a picture's score changes with the other pictures of the batch": lambda rows: rows.softmax(dim=0).amax(dim=1),
        "all labels count equally in yours, and one that fits hardly shows": lambda rows: rows.mean(dim=1),
        "whether a label fits hardly shows in yours": lambda rows: rows.norm(dim=1),
        "of one picture alone, the score has shape (), and should have shape (1,)": (
            lambda rows: -rows.topk(2, dim=1).values.diff(dim=1).squeeze()
        ),
        CHANGED: lambda rows: rows.clamp_(min=0).amax(dim=1),
        "the score is the same for all pictures: probabilities always add up to 1": lambda rows: 0 * rows.sum(dim=1) + 1,
    },
)
def fit_score(answer: Function) -> str | None:
    rows, fits = draw_cosines()
    given = rows.clone()
    scores = solved(answer(given))
    if not isinstance(scores, Tensor) and hasattr(scores, "indices"):
        return "these are values and indices, both: choose with .values"
    if isinstance(scores, Tensor) and scores.shape == (24,):
        return "this is one score for each label, (24,): one for each picture is along dim=1"
    if not isinstance(scores, Tensor) or scores.shape != (240,):
        shape = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        return f"return one score for each picture, a tensor of shape (240,): yours is {shape}"
    if scores.dtype == torch.int64 and torch.equal(scores, rows.argmax(dim=1)):
        return "these are the numbers of the best labels: a score says how well they fit"
    scores = scores.detach().double()
    if not scores.isfinite().all():
        return "some scores are infinite or no numbers"
    if scores.std() < 1e-5:
        return "the score is the same for all pictures: probabilities always add up to 1"
    alone = solved(answer(rows[:1].clone()))
    if alone.shape == ():
        return "of one picture alone, the score has shape (), and should have shape (1,): name the dimension, dim=1"
    if alone.shape != (1,) or not torch.allclose(alone.detach().double(), scores[:1], rtol=1e-3, atol=1e-5):
        return "a picture's score changes with the other pictures of the batch: use its own row alone"
    reached = beats(scores, fits)
    if reached < 0.3:
        return "the score is low where a label fits: turn its sign round"
    if reached < 0.8:
        equally = abs(torch.corrcoef(torch.stack([scores, rows.double().mean(dim=1)]))[0, 1]) > 0.9999
        why = "all labels count equally in yours, and one that fits" if equally else "whether a label fits"
        return f"{why} hardly shows{'' if equally else ' in yours'}: its AUROC here is {reached:.2f}"
    return None if torch.equal(given, rows) else CHANGED
