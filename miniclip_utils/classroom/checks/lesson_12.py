"""Checks of lesson 12: Winoground's scores, how often rivals meet, wrong captions, hard negatives, a blind answer."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import losses
from .. import scenes
from . import Function, NotSolved, examined, exercise, solved
from .lesson_06 import with_gradients


def two_by_two() -> Tensor:
    """Cosines of 60 times two pictures and two captions, mostly right; in some both captions have one cosine."""
    cosines = torch.rand(60, 2, 2) + 0.4 * torch.eye(2)
    cosines[::5, 0, 1] = cosines[::5, 0, 0]
    cosines[1::5, 1] = cosines[1::5, 0]
    return cosines


def fractions(passes: Function) -> Function:
    """The three fractions, of what says which pictures and which captions choose well, from one matrix of four numbers."""

    def scores(cosines: Tensor) -> tuple[float, float, float]:
        passed = [passes(*four) for four in cosines.flatten(1).tolist()]
        text, image = ([one[k] for one in passed] for k in (0, 1))
        both = [t and i for t, i in zip(text, image, strict=True)]
        return sum(text) / len(text), sum(image) / len(image), sum(both) / len(both)

    return scores


def right_scores(cosines: Tensor) -> tuple[float, float, float]:
    return fractions(lambda a, b, c, d: (a > b and d > c, a > c and d > b))(cosines)


def each_alone(cosines: Tensor) -> tuple[float, float]:
    """The fractions of single pictures and of single captions that choose well."""
    first, second = (fractions(passes)(cosines)[:2] for passes in (lambda a, b, c, d: (a > b, a > c), second_alone))
    return (first[0] + second[0]) / 2, (first[1] + second[1]) / 2


def second_alone(a: float, b: float, c: float, d: float) -> tuple[bool, bool]:
    return d > c, d > b


@exercise(
    inputs=lambda: [(two_by_two(),), (torch.rand(40, 2, 2),)],
    mistakes={
        "a tie counts as right here: a bag of words, for which both captions are one, would pass": fractions(
            lambda a, b, c, d: (a >= b and d >= c, a >= c and d >= b)
        ),
        "text and image score are exchanged: the text score compares the two captions of one picture": (
            lambda cosines: right_scores(cosines.mT)
        ),
        "with a tie `argmax` takes the first, which may be the right one; a tie counts as wrong: use >": fractions(
            lambda a, b, c, d: (a >= b and d > c, a >= c and d > b)
        ),
        "each picture counts on its own: the text score wants both pictures of a pair to be right": (
            lambda cosines: (*each_alone(cosines), right_scores(cosines)[2])
        ),
        "each picture counts on its own, and in the group score too: all of a pair is to be right": (
            lambda cosines: (
                *each_alone(cosines),
                sum(fractions(lambda a, b, c, d: (a > b and a > c, d > c and d > b))(cosines)[:2]) / 2,
            )
        ),
        "one of the two is enough here: the text score wants both pictures to be right, and the image score both captions": (
            lambda cosines: (
                *fractions(lambda a, b, c, d: (a > b or d > c, a > c or d > b))(cosines)[:2],
                right_scores(cosines)[2],
            )
        ),
        "only the first picture and the first caption are looked at": fractions(lambda a, b, c, d: (a > b, a > c)),
        "the group score is no product: count the pairs that pass both": (
            lambda cosines: (*right_scores(cosines)[:2], right_scores(cosines)[0] * right_scores(cosines)[1])
        ),
        "the group score is the fraction that pass either; it wants both": (
            lambda cosines: (
                *right_scores(cosines)[:2],
                right_scores(cosines)[0] + right_scores(cosines)[1] - right_scores(cosines)[2],
            )
        ),
        "these are counts: divide by the number of pairs": (
            lambda cosines: tuple(len(cosines) * score for score in right_scores(cosines))
        ),
    },
    package=scenes.group_scores,
)
def group_scores(cosines: Tensor) -> tuple[float, float, float]:
    return right_scores(cosines)


def at_least_one(total: float, others: float) -> float:
    """Probability that one of so many draws from `total` equally likely scenes is a certain one."""
    return -math.expm1(others * math.log1p(-1 / total))


@exercise(
    inputs=lambda: [(6, 6, 64), (4, 3, 16), (8, 8, 128), (100, 100, 32_768)],
    tolerance=1e-5,
    mistakes={
        "one of the pictures is the scene itself: N − 1 others could be its rival": (
            lambda c, s, n: at_least_one(c * (c - 1) * s * (s - 1), n)
        ),
        "this is the expected number of rivals; it is no probability, and can exceed 1": (
            lambda c, s, n: (n - 1) / (c * (c - 1) * s * (s - 1))
        ),
        "this is about the expected number of rivals; ask for the probability that none of the N − 1 others is the rival": (
            lambda c, s, n: n / (c * (c - 1) * s * (s - 1))
        ),
        "this counts sets of words, and each of them belongs to four scenes, of which one is the rival": (
            lambda c, s, n: at_least_one(c * (c - 1) * s * (s - 1) / 4, n - 1)
        ),
        "a draw can be the first scene once more: there are as many scenes to draw from as before": (
            lambda c, s, n: at_least_one(c * (c - 1) * s * (s - 1) - 1, n - 1)
        ),
        "in float32 1 − 1 / total is 1 if there are many scenes: compute with Python's numbers, not with tensors": (
            lambda c, s, n: (1 - (1 - torch.tensor(1 / (c * (c - 1) * s * (s - 1)))) ** (n - 1)).item()
        ),
        "this is the probability that no rival is there: take it from 1": (
            lambda c, s, n: 1 - at_least_one(c * (c - 1) * s * (s - 1), n - 1)
        ),
        "sides count: a red circle left of a blue square is another scene than the reverse, so there are more of them": (
            lambda c, s, n: at_least_one(c * (c - 1) * s * (s - 1) / 2, n - 1)
        ),
        "the two objects have different colours and different shapes": lambda c, s, n: at_least_one((c * s) ** 2, n - 1),
        "the two objects differ in colour *and* in shape, not only in one of them": (
            lambda c, s, n: at_least_one(c * s * (c * s - 1), n - 1)
        ),
        "this is the probability that all others are the rival": lambda c, s, n: (c * (c - 1) * s * (s - 1)) ** -(n - 1.0),
    },
)
def rival_probability(colors: int, shapes: int, batch_size: int) -> float:
    """Draw by draw: no rival so far, and none now."""
    scenes_in_all = colors * (colors - 1) * shapes * (shapes - 1)
    none = 1.0
    for _ in range(batch_size - 1):
        none *= (scenes_in_all - 1) / scenes_in_all
    return 1 - none


def some_captions() -> list[str]:
    every = scenes.scenes_by_words().flatten(0, 1)
    chosen = every[torch.randperm(len(every))[:12]].tolist()
    return [scenes.caption(scene, ("left of", "right of", "and")[k % 3]) for k, scene in enumerate(chosen)]


def each_swapped(swap: Function, captions: list[str]) -> list[str | None]:
    """What becomes of each caption."""
    swapped = [swap(caption) for caption in captions]
    if all(one is None or one is ... for one in swapped):
        raise NotSolved
    return swapped


def around(caption: str) -> tuple[str, str, str]:
    """First object, relation, second object."""
    for relation in (" left of ", " right of ", " and "):
        if relation in caption:
            first, second = caption.split(relation)
            return first, relation, second
    raise ValueError(caption)


def swapped_always(caption: str) -> str:
    first, relation, second = around(caption)
    return second + relation + first


def relation_reversed(caption: str) -> str:
    first, relation, second = around(caption)
    return first + {" left of ": " right of ", " right of ": " left of "}.get(relation, relation) + second


@exercise(
    inputs=lambda: (some_captions(),),
    outcome=each_swapped,
    mistakes={
        "“a and b” says the same as “b and a”: its swap is still true, and no wrong caption. Return None": swapped_always,
        "the captions with “left of” and “right of” are left out; those with “and” should be": (
            lambda caption: swapped_always(caption) if " and " in caption else None
        ),
        "“right of” is left out too, but its swap is false: only “and” says nothing of the order": (
            lambda caption: swapped_always(caption) if " left of " in caption else None
        ),
        "objects *and* relation are exchanged: “b right of a” is true where “a left of b” is": (
            lambda caption: None if " and " in caption else swapped_always(relation_reversed(caption))
        ),
        "only the colours are exchanged; here whole objects change places": (
            lambda caption: None if " and " in caption else scenes.swap_colors(caption)
        ),
        "the relation is reversed; that is false too, but the task was to exchange the objects": (
            lambda caption: None if " and " in caption else relation_reversed(caption)
        ),
        "the caption is unchanged": lambda caption: None if " and " in caption else caption,
        "a caption with “and” comes back unchanged: as a wrong caption it would be the right one. Return None": (
            lambda caption: caption if " and " in caption else swapped_always(caption)
        ),
    },
    package=scenes.swap_objects,
)
def swap_objects(caption: str) -> str | None:
    return None if " and " in caption else swapped_always(caption)


def pairs_and_negatives(n: int, m: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    image, text, negative = (F.normalize(torch.randn(k, 5), dim=1) for k in (n, n, m))
    return image, text, negative, torch.tensor(4.0)


def mean_cost(logits: Tensor) -> Tensor:
    """The mean cross-entropy of rows whose right column is the diagonal's."""
    return (logits.logsumexp(dim=1) - logits.diagonal()).mean()


def extra(i: Tensor, t: Tensor, n: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix, and the matrix with the further columns."""
    return s * i @ t.T, torch.cat([s * i @ t.T, s * i @ n.T], dim=1)


def of_rows(function: Function) -> Function:
    """The loss from a function of the matrix and of the wider one."""
    return lambda i, t, n, s: function(*extra(i, t, n, s))


@exercise(
    inputs=lambda: {
        "with as many wrong captions as pairs": pairs_and_negatives(6, 6),
        "with fewer of them": pairs_and_negatives(6, 4),
        "with none": pairs_and_negatives(6, 0),
    },
    outcome=with_gradients,
    mistakes={
        "one of the matrices has N + M rows: the wrong captions are further columns for the images, and no rows": of_rows(
            lambda z, w: (F.cross_entropy(w, torch.arange(len(w))) + F.cross_entropy(w.T, torch.arange(len(w)))) / 2
        ),
        "the wrong captions have no picture to choose: text → image is the transposed (N, N), without them": of_rows(
            lambda z, w: (mean_cost(w) + F.cross_entropy(w.T, torch.arange(len(w.T)))) / 2
        ),
        "both directions choose among captions: a caption chooses among the pictures, along its column": of_rows(
            lambda z, w: (mean_cost(w) + mean_cost(z)) / 2
        ),
        "the extra columns are in both directions: a true caption chooses among the N pictures only": of_rows(
            lambda z, w: (mean_cost(w) + mean_cost(torch.cat([z.T, w[:, len(w) :]], dim=1))) / 2
        ),
        "each picture meets one wrong caption: it chooses among all M of them": of_rows(
            lambda z, w: (mean_cost(torch.cat([z, w[:, len(w) :].diagonal()[:, None]], dim=1)) + mean_cost(z.T)) / 2
        ),
        "nothing is scaled: all cosines are to be multiplied by `logit_scale`": (
            lambda i, t, n, s: (mean_cost(torch.cat([i @ t.T, i @ n.T], dim=1)) + mean_cost(t @ i.T)) / 2
        ),
        "no gradient reaches `logit_scale`: it is learned, so multiply by the tensor itself": (
            lambda i, t, n, s: of_rows(lambda z, w: (mean_cost(w) + mean_cost(z.T)) / 2)(i, t, n, s.detach())
        ),
        "the wrong captions are not used: this is `clip_loss`": of_rows(lambda z, w: (mean_cost(z) + mean_cost(z.T)) / 2),
        "the two directions are added: take their mean": of_rows(lambda z, w: mean_cost(w) + mean_cost(z.T)),
        "only image → text is there: the N true captions look for their image as well": of_rows(lambda z, w: mean_cost(w)),
        "the extra logits are not scaled: they are cosines times `logit_scale` too": (
            lambda i, t, n, s: (mean_cost(torch.cat([s * i @ t.T, i @ n.T], dim=1)) + mean_cost(s * t @ i.T)) / 2
        ),
        "no gradient reaches the wrong captions: without it the text tower is not changed by them": (
            lambda i, t, n, s: of_rows(lambda z, w: (mean_cost(w) + mean_cost(z.T)) / 2)(i, t, n.detach(), s)
        ),
        "the wrong captions are compared with the captions; they are further columns for the *images*": (
            lambda i, t, n, s: (mean_cost(torch.cat([s * i @ t.T, s * t @ n.T], dim=1)) + mean_cost(s * t @ i.T)) / 2
        ),
        "the wrong captions stand in front, so the right column of image i is no longer i": (
            lambda i, t, n, s: (mean_cost(torch.cat([s * i @ n.T, s * i @ t.T], dim=1)) + mean_cost(s * t @ i.T)) / 2
        ),
        "in the direction text → image the wrong captions have no place: they have no image": (
            lambda i, t, n, s: (
                (mean_cost(torch.cat([s * i @ t.T, s * i @ n.T], 1)) + mean_cost(torch.cat([s * t @ i.T, s * t @ n.T], 1)))
                / 2
            )
        ),
        "the loss is no tensor with a gradient: return it without .item()": (
            lambda i, t, n, s: of_rows(lambda z, w: (mean_cost(w) + mean_cost(z.T)) / 2)(i, t, n, s).item()
        ),
    },
    package=losses.hard_negative_loss,
)
def hard_negative_loss(
    image_features: Tensor, text_features: Tensor, negative_features: Tensor, logit_scale: Tensor
) -> Tensor:
    """Number by number, from the probabilities."""
    n = len(image_features)
    total = torch.zeros(())
    for k in range(n):
        row = torch.stack([logit_scale * (image_features[k] @ text) for text in [*text_features, *negative_features]])
        column = torch.stack([logit_scale * (image @ text_features[k]) for image in image_features])
        total = total - row.log_softmax(0)[k] - column.log_softmax(0)[k]
    return total / (2 * n)


def usual_first(caption: str, swapped: str) -> bool:
    """Whether the object that the caption puts on the left has the colour that comes first in the list."""
    first, relation, second = around(caption)
    left, right = (second, first) if relation == " right of " else (first, second)
    return scenes.COLORS.index(left.split()[1]) < scenes.COLORS.index(right.split()[1])


@examined(
    right=usual_first,
    mistakes={
        "the first caption is always chosen": lambda caption, swapped: True,
        "the second caption is always chosen": lambda caption, swapped: False,
        "this is the reverse": lambda caption, swapped: not usual_first(caption, swapped),
        "with “right of” the object that is named first stands on the right": (
            lambda caption, swapped: usual_first(caption.replace("right of", "left of"), swapped)
        ),
        "return True or False": lambda caption, swapped: caption if usual_first(caption, swapped) else swapped,
    },
)
def blind_choice(answer: Function) -> str | None:
    usual = scenes.scenes_by_words()[torch.randperm(225)[:100], 0].tolist()
    chosen, expected = [], []
    for k, scene in enumerate(usual):
        caption = scenes.caption(scene, ("left of", "right of")[k % 2])
        both = [caption, swapped_always(caption)]
        is_first = bool(torch.rand(()) < 0.5)
        value = solved(answer(*(both if is_first else both[::-1])))
        value = value.item() if hasattr(value, "item") else value  # NumPy has booleans of its own
        if not isinstance(value, (bool, int)):
            return "return True or False"
        chosen.append(bool(value))
        expected.append(is_first)
    right = [one == other for one, other in zip(chosen, expected, strict=True)]
    if sum(right) >= 90:
        return None
    if all(chosen) or not any(chosen):
        return f"the {'first' if chosen[0] else 'second'} caption is always chosen: {sum(right)} of 100 right"
    if sum(right) <= 10:
        return f"this is the reverse: {sum(right)} of 100 right"
    if sum(right[::2]) >= 45:
        return f"with “right of” the object that is named first stands on the right: {sum(right[1::2])} of these 50 right"
    return f"{sum(right)} of 100 right, and 90 are wanted: use which colour, or which shape, comes first in its list"
