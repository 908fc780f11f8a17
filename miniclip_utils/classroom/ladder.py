"""The ladder: one short training, in which the lessons replace one part after the other.

The first rung is the crude CLIP of lesson 00. Each further rung keeps the parts of the rungs below it and changes one.
All train alike: 125 batches of 128 drawings.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor, nn

from ..data import BatchLoader, ImageTextDataset, load_splits, normalize
from ..evaluate import class_features, encode_images
from ..image_encoder import ResNet, VisionTransformer, whiten_stem
from ..loop import Recipe, tokenize_captions, train_epoch
from ..losses import clip_loss, multi_positive_loss
from ..model import PRESETS, MiniCLIP
from ..optimizers import make_optimizers
from ..prompts import TEMPLATES, fill
from ..text_encoder import TextTransformer
from ..tokenizer import PAD, WordTokenizer
from . import over_seeds
from .style import MATCH

LOG = Path(__file__).parent / "logs" / "ladder.jsonl"  # written by tools/ladder.py
BATCH_SIZE = 128
CPU = torch.device("cpu")


class ConvNet(nn.Sequential):
    """Three convolutions, each of which halves height and width, and the mean over all positions."""

    def __init__(self):
        layers = []
        for channels_in, channels_out in ((3, 32), (32, 64), (64, 128)):
            layers.append(nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1))
            layers += [nn.BatchNorm2d(channels_out), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.width = 128


class BagOfWords(nn.EmbeddingBag):
    """The mean of a caption's word vectors, whatever their order."""

    def __init__(self, vocab_size):
        super().__init__(vocab_size, 64, mode="mean", padding_idx=PAD)
        self.width = 64


class CLIP(nn.Module):
    """Any two towers, a projection behind each, and the scale of the cosines.

    Args:
        image_encoder, text_encoder: towers with a `width`, the dimension of their features.
        scale: multiplies the cosines; lesson 05 says why 1 / 0.07.
        learned_scale: train it from there, as CLIP does.
    """

    def __init__(self, image_encoder, text_encoder, scale=1 / 0.07, learned_scale=False):
        super().__init__()
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.image_projection = nn.Linear(image_encoder.width, 128, bias=False)
        self.text_projection = nn.Linear(text_encoder.width, 128, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(scale).log(), learned_scale)

    def encode_image(self, images):
        return self.image_projection(self.image_encoder(images))

    def encode_text(self, tokens):
        return self.text_projection(self.text_encoder(tokens))


def train(model, batches, caption_tokens, loss_function):
    """One pass over batches of normalised images (B, 3, H, W) and labels int64 (B,), each pair in a random wording.

    The learning rate rises for three tenths of the steps and then falls to zero.

    Args:
        caption_tokens: int64 (classes, templates, L).
        loss_function: see `Rung.loss`.
    """
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, len(batches))
    for images, labels in batches:
        template = torch.randint(caption_tokens.shape[1], labels.shape)
        image_features = F.normalize(model.encode_image(images), dim=-1)
        tokens = caption_tokens[labels, template]
        text_features = F.normalize(model.encode_text(tokens), dim=-1)
        loss = loss_function(image_features, text_features, model.logit_scale.exp(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def diagonal_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor, labels: Tensor) -> Tensor:
    """`clip_loss`, which does not look at labels."""
    return clip_loss(image_features, text_features, logit_scale)


@dataclass(frozen=True)
class Rung:
    """The parts of a short training.

    Attributes:
        templates: captions are class names in one of these, drawn for each pair.
        image_encoder: makes the image tower.
        text_encoder: makes the text tower, from the size of the vocabulary and the tokens in a caption.
        scale, learned_scale: see `CLIP`.
        loss: of L2-normalised image and text features (N, D), the scale, and labels int64 (N,); returns a scalar.
        train_epoch: the training of lesson 07, with the loss and the scale of the package, in place of `train`.
    """

    templates: Sequence[str] = ("{}",)
    image_encoder: Callable[[], nn.Module] = ConvNet
    text_encoder: Callable[[int, int], nn.Module] = lambda vocab_size, context_length: BagOfWords(vocab_size)
    scale: float = 1 / 0.07
    learned_scale: bool = False
    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = diagonal_loss
    train_epoch: Callable[..., Iterable] | None = None


SMALL = PRESETS["small"]
CRUDE = Rung()
SENTENCES = replace(CRUDE, templates=TEMPLATES)
RESNET = replace(SENTENCES, image_encoder=lambda: ResNet(SMALL.resnet_stem_width, SMALL.resnet_widths, SMALL.resnet_blocks))
TRANSFORMER = replace(
    RESNET, text_encoder=lambda vocab_size, context_length: TextTransformer(vocab_size, context_length, SMALL.text_width)
)
VIT = replace(TRANSFORMER, image_encoder=lambda: VisionTransformer(32, patch_size=8, width=96, layers=3, num_heads=4))
NO_TEMPERATURE = replace(TRANSFORMER, scale=1.0)  # with the ResNet again: the logits are the cosines
TEMPERATURE = replace(TRANSFORMER, learned_scale=True)
SOFT_TARGETS = replace(TEMPERATURE, loss=multi_positive_loss)
RECIPE = replace(SOFT_TARGETS, train_epoch=train_epoch)

RUNGS = {
    "00 crude": CRUDE,
    "01 sentences": SENTENCES,
    "02 ResNet": RESNET,
    "03 transformer": TRANSFORMER,
    "04 ViT instead": VIT,
    "05 no temperature": NO_TEMPERATURE,
    "05 learned temperature": TEMPERATURE,
    "06 soft targets": SOFT_TARGETS,
    "07 recipe": RECIPE,
}


@cache
def shapes() -> dict[str, ImageTextDataset]:
    """The drawings to train with, 125 batches of them, and the never-seen ones; drawn once."""
    splits = load_splits("shapes", splits=["train", "held_out"])
    training = splits["train"]
    few = replace(training, images=training.images[: 125 * BATCH_SIZE], labels=training.labels[: 125 * BATCH_SIZE])
    return splits | {"train": few}


def climb(rung: Rung, seed: int = 0) -> float:
    """Trains one rung on the CPU, and returns its accuracy on never-seen combinations, among 128 captions, in [0, 1]."""
    training, never_seen = shapes()["train"], shapes()["held_out"]
    captions = [caption for template in rung.templates for caption in fill(template, training.class_names)]
    tokenizer = WordTokenizer.from_captions(captions)
    caption_tokens = tokenize_captions(tokenizer, training.class_names, rung.templates)
    torch.manual_seed(seed)
    model: Any  # a CLIP has what is used of a MiniCLIP
    if rung.train_epoch is None:
        text_encoder = rung.text_encoder(len(tokenizer), tokenizer.context_length)
        model = CLIP(rung.image_encoder(), text_encoder, rung.scale, rung.learned_scale)
        train(model, BatchLoader(training, BATCH_SIZE, CPU, flip=False, shift=0), caption_tokens, rung.loss)
    else:
        model = MiniCLIP(SMALL, len(tokenizer), tokenizer.context_length)
        whiten_stem(model.image_encoder, normalize(training.images[:5000]))
        recipe = Recipe(epochs=1, batch_size=BATCH_SIZE)
        loader = BatchLoader(training, BATCH_SIZE, CPU, recipe.flip, recipe.shift)
        optimizers = make_optimizers(model, recipe.learning_rate, recipe.convolution_learning_rate, recipe.weight_decay)
        for _ in rung.train_epoch(model, loader, optimizers, caption_tokens, recipe, epoch=0):
            pass
    texts = class_features(model, tokenizer, never_seen.class_names, rung.templates[:1])
    predicted = (encode_images(model, never_seen.images) @ texts.T).argmax(dim=1)
    return (predicted == never_seen.labels).float().mean().item()


def plot(marked: str, yours: float | None = None) -> Axes:
    """The ladder from its log up to one rung, which is marked: mean ± standard deviation over the seeds.

    The rows above stay empty, so that no later lesson's result is given away.

    Args:
        marked: a name of `RUNGS`.
        yours: the accuracy that the reader's own run of this rung reached.
    """
    rows = over_seeds.read(LOG)
    axis = plt.subplots(figsize=(7, 3.8))[1]
    top = list(RUNGS).index(marked)
    for height, name in enumerate(list(RUNGS)[: top + 1]):
        percents = [100 * row["never_seen_top1"] for row in rows if row["rung"] == name]
        mean, deviation = statistics.mean(percents), statistics.stdev(percents)
        color = MATCH if name == marked else "grey"
        axis.errorbar(mean, height, xerr=deviation, fmt="o", color=color, capsize=3)
        axis.text(102, height, f"{mean:.0f} ± {deviation:.0f}", va="center", fontsize=9)  # right of the frame
    if yours is not None:
        place = (100 * yours, top)
        axis.plot(*place, "*", color="black", markersize=10)
        axis.annotate("this run", place, (0, -6), textcoords="offset points", ha="center", va="top", fontsize=8)
    axis.set(yticks=range(len(RUNGS)), yticklabels=list(RUNGS), ylim=(-0.7, len(RUNGS) - 0.4), xlim=(0, 100))
    axis.set_xlabel("never-seen combinations classified correctly, in %\n(mean ± standard deviation of five seeds)")
    return axis
