"""The training loop: a recipe, the loss of one batch, and one pass over the data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .data import BatchLoader
from .device import has_fast_bfloat16
from .distributed import average_gradients, gather
from .errors import UserError
from .losses import loss_floor, multi_positive_loss
from .model import MiniCLIP
from .optimizers import learning_rate_factor, set_learning_rates
from .prompts import fill
from .tokenizer import WordTokenizer

# From where to where each value of a recipe may lie. AdamW moves a weight by about the learning rate in each step, so that
# a rate of ten forgets in one step all that was learned before it.
LIMITS = {
    "epochs": (1, 1_000_000),
    "batch_size": (1, 1_000_000),
    "learning_rate": (1e-9, 10),
    "convolution_learning_rate": (1e-9, 10),
    "weight_decay": (0, 10),
    "warmup": (0, 1),
    "label_smoothing": (0, 1),
    "flip": (False, True),
    "alternate": (False, True),
    "shift": (0, 100),
}
KINDS = {
    int: ((int,), "a whole number from {:,} to {:,}"),
    float: ((int, float), "a number from {:,} to {:,}"),
    bool: ((bool,), "true or false"),
}


@dataclass(frozen=True)
class Recipe:
    """How to train. A value of another type, or outside of `LIMITS`, is a `UserError`.

    Args:
        epochs: passes over the training images.
        batch_size: pairs in a batch.
        learning_rate: its peak, reached after the warm-up, for AdamW.
        convolution_learning_rate: its peak for Muon, which trains the convolutions of a ResNet.
        weight_decay: of AdamW's matrices; gains, biases and the scale have none.
        warmup: fraction of all steps in which the learning rate rises from zero.
        label_smoothing: see `multi_positive_loss`.
        flip, shift: augmentation, see `augment`.
        alternate: mirror in alternation, not at random, see `BatchLoader`.
    """

    epochs: int = 12
    batch_size: int = 256
    learning_rate: float = 5e-3
    convolution_learning_rate: float = 0.1
    weight_decay: float = 0.05
    warmup: float = 0.1
    label_smoothing: float = 0.0
    flip: bool = True
    shift: int = 2
    alternate: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), LIMITS[field.name]
            types, wanted = KINDS[field.type]  # type: ignore[index]
            is_of_type = isinstance(value, types) and isinstance(value, bool) == (field.type is bool)
            if not (is_of_type and low <= value <= high):
                name = field.name.replace("_", " ")
                raise UserError(f"the {name} of a recipe cannot be {value!r}: choose {wanted.format(low, high)}")


RECIPES = {
    "small": Recipe(epochs=3, batch_size=128),
    "medium": Recipe(epochs=13, batch_size=1000, convolution_learning_rate=0.24, label_smoothing=0.3, alternate=True),
    "vit-small": Recipe(epochs=20, batch_size=128, learning_rate=2e-3),
}


PICTURES_SEEN = 60_000  # in all epochs together; with the preset "small" about a minute on two cores
MOST_EPOCHS = 100
SMALLEST_BATCH = 32  # BatchNorm and the contrast need a few pictures of each class
SHARE_FROM = 0.2  # of these epochs, for a run that starts from another one
RATES_FROM = 0.2  # and of the learning rates


def recipe_for(preset: str, pictures: int, from_run: bool = False) -> Recipe:
    """The preset's recipe, with the epochs and the batch size that suit the number of training pictures.

    The epochs show `PICTURES_SEEN` pictures, but none of them more than `MOST_EPOCHS` times, and are never fewer than the
    preset's. A batch holds a tenth of the pictures in whole sixteens, at least `SMALLEST_BATCH` and at most the preset's.
    A run that starts from another one takes a fifth of the epochs and of the learning rates.
    """
    recipe = RECIPES[preset]
    batch_size = min(recipe.batch_size, max(SMALLEST_BATCH, pictures // 160 * 16))
    epochs = max(recipe.epochs, min(MOST_EPOCHS, round(PICTURES_SEEN / pictures)))
    recipe = replace(recipe, epochs=epochs, batch_size=batch_size)
    if not from_run:
        return recipe
    return replace(
        recipe,
        epochs=max(1, round(SHARE_FROM * epochs)),
        learning_rate=RATES_FROM * recipe.learning_rate,
        convolution_learning_rate=RATES_FROM * recipe.convolution_learning_rate,
    )


def tokenize_captions(tokenizer: WordTokenizer, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Each class name in each template as token numbers, int64 (classes, templates, context_length)."""
    return torch.stack([tokenizer(fill(template, class_names)) for template in templates], dim=1)


def batch_loss(
    model: MiniCLIP, images: Tensor, labels: Tensor, caption_tokens: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """The loss of one batch, each image with a caption in a random wording.

    Each distinct caption is encoded once, and its feature is shared by all images that have it. Under `torchrun` the
    features of all processes are compared, and the loss is the same in each.

    Args:
        images: normalised (B, 3, H, W).
        labels: int64 (B,).
        caption_tokens: int64 (classes, templates, L).
        label_smoothing: see `multi_positive_loss`.

    Returns:
        scalar.
    """
    template = torch.randint(caption_tokens.shape[1], labels.shape, device=labels.device)
    distinct, which = torch.unique(labels * caption_tokens.shape[1] + template, return_inverse=True)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=has_fast_bfloat16(images.device)):
        image_features = model.encode_image(images)
        text_features = model.encode_text(caption_tokens.flatten(0, 1)[distinct])[which]
    # Small differences of cosines times a large scale: the loss is computed in full precision.
    image_features = F.normalize(image_features.float(), dim=-1)
    text_features = F.normalize(text_features.float(), dim=-1)
    scale = model.logit_scale.exp()
    return multi_positive_loss(gather(image_features), gather(text_features), scale, gather(labels), label_smoothing)


def train_epoch(
    model: MiniCLIP,
    loader: BatchLoader,
    optimizers: list[torch.optim.Optimizer],
    caption_tokens: Tensor,
    recipe: Recipe,
    epoch: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Trains on each batch once, and stops after each step, so that the caller can look at the model.

    Args:
        caption_tokens: int64 (classes, templates, L).
        epoch: 0, 1, … below `recipe.epochs`; it fixes the learning rates.

    Yields:
        after each step the batch's loss and the floor below it, see `loss_floor`; two scalars without gradient.
    """
    model.train()
    total_steps = recipe.epochs * len(loader)
    warmup_steps = max(1, round(recipe.warmup * total_steps))
    for step, (images, labels) in enumerate(loader, start=epoch * len(loader)):
        set_learning_rates(optimizers, learning_rate_factor(step, total_steps, warmup_steps))
        loss = batch_loss(model, images, labels, caption_tokens, recipe.label_smoothing)
        model.zero_grad()
        loss.backward()
        average_gradients(model)
        for optimizer in optimizers:
            optimizer.step()
        model.clamp_logit_scale()
        yield loss.detach(), loss_floor(gather(labels), recipe.label_smoothing)
