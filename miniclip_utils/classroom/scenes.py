"""Scenes of two objects: what is drawn and said, a small CLIP for them, and tests of what it knows of order and binding."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import normalize
from ..device import has_fast_bfloat16
from ..image_encoder import ResNet
from ..losses import hard_negative_loss
from ..shapes import CLASS_NAMES, draw_scenes
from ..text_encoder import TextTransformer
from ..tokenizer import WordTokenizer
from .ladder import CLIP, CPU, BagOfWords

STEPS, BATCH_SIZE = 300, 64

COLORS = ("black", "green", "yellow", "blue", "red", "pink")
SHAPES = ("circle", "square", "triangle", "cross", "star", "heart")
OBJECTS = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)
CLASSES = torch.tensor([CLASS_NAMES.index(f"small {name}") for name in OBJECTS])
NUMBERS = ("one", "two", "three", "four")


# The world: a scene is a pair of objects, int64 (2,): the left one and the right one, indices into `OBJECTS`.


def exchange_sides(scenes: Tensor) -> Tensor:
    """Scenes (N, 2) with the left object on the right."""
    return scenes.flip(1)


def exchange_colors(scenes: Tensor) -> Tensor:
    """Scenes (N, 2) in which each object has the colour of the other."""
    return len(SHAPES) * (scenes.flip(1) // len(SHAPES)) + scenes % len(SHAPES)


def scenes_by_words() -> Tensor:
    """All scenes of two colours and two shapes, int64 (225, 4, 2).

    A row holds the four scenes with the same words: one that is called the usual one, then those with sides exchanged,
    with colours exchanged, and with both. In the usual ones, the colour and the shape that come first in their lists are
    those of the left object: there, the words alone say what the scene is.
    """
    usual = torch.tensor(
        [
            [len(SHAPES) * left_color + left_shape, len(SHAPES) * right_color + right_shape]
            for left_color, right_color in combinations(range(len(COLORS)), 2)
            for left_shape, right_shape in combinations(range(len(SHAPES)), 2)
        ]
    )
    colored = exchange_colors(usual)
    return torch.stack([usual, exchange_sides(usual), exchange_sides(colored), colored], dim=1)


def draw(scenes: Tensor, generator: torch.Generator) -> Tensor:
    """Scenes (N, 2) → images, uint8 (N, 3, 32, 32): each object in the upper or lower quadrant of its side."""
    rows = torch.randint(2, scenes.shape, generator=generator)
    return draw_scenes(CLASSES[scenes], generator, 32, 2 * rows + torch.tensor([0, 1]))[0]


def draw_equal(index: Tensor, numbers: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, 3, 32, 32) of 1 to 4 equal objects, each in a quadrant of its own."""
    images = torch.empty(len(index), 3, 32, 32, dtype=torch.uint8)
    for number in numbers.unique().tolist():
        chosen = numbers == number
        images[chosen] = draw_scenes(CLASSES[index[chosen], None].expand(-1, number), generator, 32)[0]
    return images


# What is said of it.


def caption(scene: Sequence[int], wording: str) -> str:
    """A sentence that is true of a scene. The wording is "left of" or "right of", or "and", which names the left first."""
    left, right = (OBJECTS[index] for index in scene)
    first, second = (right, left) if wording == "right of" else (left, right)
    return f"a {first} {wording} a {second}"


def swap_objects(caption: str) -> str | None:
    """The caption with its two objects exchanged; None if that is true as well, as with "and"."""
    words = caption.split()
    first, relation, second = words[:3], words[3:-3], words[-3:]
    if relation == ["and"]:
        return None
    return " ".join(second + relation + first)


def swap_colors(caption: str) -> str:
    """The caption with its two colours exchanged."""
    words = caption.split()
    words[1], words[-2] = words[-2], words[1]
    return " ".join(words)


def count_caption(index: int, number: int) -> str:
    """A number of equal objects; 0 leaves the number out: "some red circles"."""
    name = OBJECTS[index] + ("es" if OBJECTS[index].endswith("s") else "s")
    return f"one {OBJECTS[index]}" if number == 1 else f"{NUMBERS[number - 1] if number else 'some'} {name}"


def scene_tokenizer() -> WordTokenizer:
    """Knows the words of all captions in this module."""
    names = [caption((index, index), wording) for index in range(len(OBJECTS)) for wording in ("left of", "right of", "and")]
    counts = [count_caption(index, number) for index in range(len(OBJECTS)) for number in (0, 1, 2, 3, 4)]
    return WordTokenizer.from_captions([*names, *counts, "a circle that is not red"])


# A model of it.


class BagOfHalves(nn.Module):
    """The mean of a tower's features of the left and of the right half: whole objects, without their sides."""

    def __init__(self, tower: ResNet):
        super().__init__()
        self.tower, self.width = tower, tower.width

    def forward(self, images: Tensor) -> Tensor:
        left, right = images.tensor_split(2, dim=3)
        return (self.tower(left) + self.tower(right)) / 2


class Positions(nn.Module):
    """All positions of a ResNet's last feature map side by side, in the place of their mean."""

    def __init__(self, tower: ResNet):
        super().__init__()
        self.tower, self.width = tower, 9 * tower.width  # 3×3 positions of 32×32 pixels

    def forward(self, images: Tensor) -> Tensor:
        return self.tower.stages(self.tower.stem(images).relu()).flatten(1)


IMAGE_ENCODERS: dict[str, Callable[[ResNet], Any]] = {
    "mean": lambda tower: tower,
    "halves": BagOfHalves,
    "positions": Positions,
}


def new_model(tokenizer: WordTokenizer, seed: int, image_encoder: str = "mean", text_encoder: str = "transformer") -> CLIP:
    """A small CLIP for scenes; `image_encoder` is one of `IMAGE_ENCODERS`, `text_encoder` "transformer" or "bag"."""
    torch.manual_seed(seed)
    image_tower = IMAGE_ENCODERS[image_encoder](ResNet(8, (16, 32, 64), (1, 1, 1)))
    if text_encoder == "bag":
        text_tower: nn.Module = BagOfWords(len(tokenizer))
    else:
        text_tower = TextTransformer(len(tokenizer), tokenizer.context_length, 64)
    return CLIP(image_tower, text_tower, learned_scale=True).to(memory_format=torch.channels_last)


def features(model: CLIP, tokenizer: WordTokenizer, images: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """L2-normalised features of uint8 images (N, 3, 32, 32) and of M texts: (N, 128) and (M, 128)."""
    inputs = normalize(images).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bfloat16(CPU)):
        image_features, text_features = model.encode_image(inputs), model.encode_text(tokenizer(texts))
    return F.normalize(image_features.float(), dim=1), F.normalize(text_features.float(), dim=1)


def train(
    model: CLIP,
    tokenizer: WordTokenizer,
    batches: Iterator[tuple[Tensor, list[str]]],
    swaps: Sequence[Callable[[str], str | None]] = (),
    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = hard_negative_loss,
    steps: int = STEPS,
) -> None:
    """Trains on the CPU; the learning rate rises for three tenths of the steps and then falls to zero.

    Args:
        batches: images, uint8 (B, 3, 32, 32), and a caption of each.
        swaps: what makes a wrong caption of a right one, or None. Each of them adds captions that no picture fits.
        loss: of L2-normalised image features (B, D), text features (B, D), features of wrong captions (M, D), and the scale.
    """
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    model.train()
    for images, captions in islice(batches, steps):
        wrong = [other for text in captions for swap in swaps if (other := swap(text)) is not None]
        image_features, text_features = features(model, tokenizer, images, captions + wrong)
        own, negative = text_features.split([len(captions), len(wrong)])
        value = loss(image_features, own, negative, model.logit_scale.exp())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    model.eval()


# What it is trained on.


@dataclass(frozen=True)
class World:
    """Which scenes there are, and what is said of them.

    No two scenes of a batch have the same words, so that a bag of words is enough to tell them apart; but see `rivals`.

    Attributes:
        usual: fraction of the scenes that are usual, see `scenes_by_words`. At 1/4, the words say nothing of the scene.
        said: fraction of the captions that say who is where; the others say "and".
        left: fraction of these that say "left of"; the others say "right of".
        rivals: fraction of a batch that consists of all four scenes with the same words.
        held_out: fraction of the 36 objects that are never shown, in sixths: as many of each colour and of each shape.
    """

    usual: float = 1 / 4
    said: float = 1.0
    left: float = 0.7
    rivals: float = 0.0
    held_out: float = 0.0

    def is_held_out(self, objects: Tensor) -> Tensor:
        """Whether objects, indices into `OBJECTS`, are never shown."""
        return (objects % len(SHAPES) - objects // len(SHAPES)) % len(SHAPES) < round(self.held_out * len(SHAPES))

    def batches(self, seed: int, batch_size: int = BATCH_SIZE) -> Iterator[tuple[Tensor, list[str]]]:
        """Images and captions without end."""
        generator = torch.Generator().manual_seed(seed)
        scenes = scenes_by_words()
        weights = torch.tensor([self.usual] + 3 * [(1 - self.usual) / 3])  # of the four with the same words
        weights = weights * ~self.is_held_out(scenes).any(dim=2)  # (225, 4)
        scenes, weights = scenes[weights.sum(dim=1) > 0], weights[weights.sum(dim=1) > 0]
        whole = round(self.rivals * batch_size / 4)
        while True:
            order = torch.randperm(len(scenes), generator=generator)
            together, alone = order[:whole], order[whole : batch_size - 3 * whole]
            one = weights[alone].multinomial(1, generator=generator)[:, 0]
            batch = torch.cat([scenes[together].flatten(0, 1), scenes[alone, one]])
            yield draw(batch, generator), self.captions(batch, generator)

    def captions(self, scenes: Tensor, generator: torch.Generator) -> list[str]:
        """A caption of each scene (N, 2)."""
        chance, first = torch.rand(2, len(scenes), generator=generator).tolist()
        texts = []
        for scene, drawn, side in zip(scenes.tolist(), chance, first, strict=True):
            if drawn < self.said:
                texts.append(caption(scene, "left of" if side < self.left else "right of"))
            else:  # either object first
                texts.append(caption(scene if side < 0.5 else scene[::-1], "and"))
        return texts


# What it has learned. Each test compares a right caption with a wrong one that has the same words: chance is 1/2.


def swap_accuracy(own: Tensor, other: Tensor) -> float:
    """Fraction of pictures whose own caption has a higher cosine than the swapped one, (N,) each; a tie counts half."""
    difference = own - other
    return ((difference > 1e-5).float() + 0.5 * (difference.abs() <= 1e-5).float()).mean().item()


def group_scores(cosines: Tensor) -> tuple[float, float, float]:
    """Winoground's three scores (Thrush et al. 2022, §3) of N times two pictures and two captions.

    Args:
        cosines: (N, 2, 2), picture × caption; picture i belongs to caption i.

    Returns:
        Fractions of the N: both pictures choose their caption; both captions choose their picture; all of that.
    """
    text = (cosines[:, 0, 0] > cosines[:, 0, 1]) & (cosines[:, 1, 1] > cosines[:, 1, 0])
    image = (cosines[:, 0, 0] > cosines[:, 1, 0]) & (cosines[:, 1, 1] > cosines[:, 0, 1])
    return text.float().mean().item(), image.float().mean().item(), (text & image).float().mean().item()


@torch.no_grad()
def two_by_two(
    model: CLIP, tokenizer: WordTokenizer, scenes: Tensor, exchange: Callable[[Tensor], Tensor], wordings: Sequence[str]
) -> Tensor:
    """Cosines (N, 2, 2), picture × caption, of each scene (N, 2) and the one that `exchange` makes of it.

    Both captions of a scene have the same one of the wordings, in turn.
    """
    generator = torch.Generator().manual_seed(2023)
    images, texts = [], []
    for both in (scenes, exchange(scenes)):
        captions = [caption(scene, wordings[k % len(wordings)]) for k, scene in enumerate(both.tolist())]
        pictures, words = features(model, tokenizer, draw(both, generator), captions)
        images.append(pictures)
        texts.append(words)
    return torch.stack(images, dim=1) @ torch.stack(texts, dim=1).mT


@torch.no_grad()
def retrieval(model: CLIP, tokenizer: WordTokenizer, scenes: Tensor) -> float:
    """Fraction of pictures that find their caption among 64 whose words differ; of scenes (N, 2), in groups of 64."""
    generator = torch.Generator().manual_seed(2024)
    scenes = scenes[torch.randperm(len(scenes), generator=generator)]
    right = []
    for group in scenes.split(BATCH_SIZE)[: len(scenes) // BATCH_SIZE]:
        images, texts = features(model, tokenizer, draw(group, generator), World().captions(group, generator))
        right.append(((images @ texts.T).argmax(dim=1) == torch.arange(len(group))).float().mean())
    return torch.stack(right).mean().item()


def measure(model: CLIP, tokenizer: WordTokenizer) -> dict[str, float]:
    """What a row of the log says of a model. All are fractions.

    Returns:
        retrieval, retrieval_unusual: see `retrieval`, of usual scenes and of those with their sides exchanged.
        order_usual, order_unusual: pictures that prefer their caption to the one with its objects swapped.
        binding_usual, binding_unusual: the same with swapped colours. order, binding: the means of both.
        and_binding: the same where the captions say "and".
        group: Winoground's, for order.
    """
    scenes = scenes_by_words()
    row = {
        "retrieval": retrieval(model, tokenizer, scenes[:, 0]),
        "retrieval_unusual": retrieval(model, tokenizer, scenes[:, 1]),
    }
    for name, exchange, wordings in (
        ("order", exchange_sides, ("left of", "right of")),
        ("binding", exchange_colors, ("left of", "right of")),
        ("and_binding", exchange_colors, ("and",)),
    ):
        cosines = two_by_two(model, tokenizer, scenes[:, 0], exchange, wordings)
        usual = swap_accuracy(cosines[:, 0, 0], cosines[:, 0, 1])
        unusual = swap_accuracy(cosines[:, 1, 1], cosines[:, 1, 0])
        row[name] = (usual + unusual) / 2
        if name != "and_binding":
            row |= {f"{name}_usual": usual, f"{name}_unusual": unusual}
        if name == "order":
            row["group"] = group_scores(cosines)[2]
    return {name: round(value, 4) for name, value in row.items()}
