"""Measures what each ingredient of the photo recipe does: `python -m tools.ablation cifar10_jpeg.tar.xz LOG.jsonl`.

Each variant changes something in the "medium" recipe, at half its widths, and becomes a row of the log. A quarter of the
pictures in batches of a quarter: as many steps an epoch as in the whole run, and the number of pictures limits the
accuracy, as there. Most changes are those of a recipe with which a classifier learns CIFAR-10 in seconds (airbench94 with
Muon, Jordan 2024, https://github.com/KellerJordan/cifar10-airbench). "supervised" is a classifier too, and shows what
contrast costs.

At 80% of 10,000 validation pictures the standard error of a row is 0.4 points, and that of a difference of two rows up to
0.6 points; the seed of the training comes on top of it.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miniclip_utils import loop
from miniclip_utils.checkpoint import Run
from miniclip_utils.cli import run_command
from miniclip_utils.data import ImageTextDataset, load_splits, normalize
from miniclip_utils.device import has_fast_bfloat16
from miniclip_utils.errors import UserError
from miniclip_utils.evaluate import class_features, encode_images
from miniclip_utils.fit import new_config, prepare, seed_epoch, watch
from miniclip_utils.image_encoder import ResidualBlock, ResNet
from miniclip_utils.model import PRESETS, MiniCLIP, ModelConfig, evaluating
from miniclip_utils.optimizers import make_optimizers

from .meter import Row

CPU = torch.device("cpu")
Config = TypeVar("Config", loop.Recipe, ModelConfig)

# Other values of what Recipe and ModelConfig hold, and changes for which they have no name.
RECORD: Row = {
    "label_smoothing": 0.2,
    "straight": True,  # the rates fall in a straight line, not along half a cosine
    "gelu": True,  # in the place of ReLU
    "max_pooling": True,  # the feature is the largest value over all positions, not the mean
    "fast_norm": True,  # BatchNorm has no gain, and its running statistics follow the batches faster
    "biases_apart": True,  # SGD trains the biases of BatchNorm, at a rate of their own
}
VARIANTS: dict[str, Row] = {
    "base": {},
    "supervised": {"supervised": True},  # a linear head has the classes as its targets, in the place of captions
    "shortcuts": {"resnet_shortcuts": True},
    "random-mirroring": {"alternate": False},
    "smoothing-0.1": {"label_smoothing": 0.1},
    "straight": {"straight": True},
    "gelu": {"gelu": True},
    "max-pooling": {"max_pooling": True},
    "fast-norm": {"fast_norm": True},
    "biases-apart": {"biases_apart": True},
    "record": RECORD,
}
TRAINED, VALIDATED = 12_500, 10_000  # pictures
BATCH_SIZE = 250


class Block(nn.Module):
    """A residual block with the changes that concern it."""

    def __init__(self, block: ResidualBlock, changes: Row):
        super().__init__()
        self.block, self.activation = block, F.gelu if "gelu" in changes else F.relu
        if "fast_norm" in changes:
            for norm in (block.norm_1, block.norm_2):
                norm.momentum, norm.eps = 0.4, 1e-12
                norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        residual = self.activation(block.norm_1(block.pool(block.conv_1(x))))
        residual = block.norm_2(block.conv_2(residual))
        return self.activation(residual + block.shortcut(block.pool(x)))


class Tower(ResNet):
    """The modules and weights of a ResNet, with the changes that concern them."""

    def __init__(self, resnet: ResNet, changes: Row):
        nn.Module.__init__(self)
        self.width, self.stem, self.activation = resnet.width, resnet.stem, F.gelu if "gelu" in changes else F.relu
        self.pool: Callable[..., Tensor] = torch.amax if "max_pooling" in changes else torch.mean
        blocks = [module for module in resnet.stages.modules() if isinstance(module, ResidualBlock)]
        self.stages = nn.Sequential(*(Block(block, changes) for block in blocks))

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(self.stages(self.activation(self.stem(images))), dim=(2, 3))


def straight_fall(step: int, total_steps: int, warmup_steps: int) -> float:
    """In the place of `learning_rate_factor`: a straight rise, then a straight fall to zero."""
    return min((step + 1) / warmup_steps, (total_steps - step) / max(1, total_steps - warmup_steps))


def classification_loss(model: MiniCLIP, images: Tensor, labels: Tensor, _: Tensor, label_smoothing: float) -> Tensor:
    """In the place of `batch_loss`: the image projection is a head, with one output for each class."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=has_fast_bfloat16(images.device)):
        logits = model.encode_image(images)
    return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)


def changed_optimizers(model: MiniCLIP, recipe: loop.Recipe, changes: Row) -> list[torch.optim.Optimizer]:
    """The package's, and SGD for the biases if they are trained apart."""
    optimizers = make_optimizers(model, recipe.learning_rate, recipe.convolution_learning_rate, recipe.weight_decay)
    if "biases_apart" in changes:
        biases = [norm.bias for norm in model.image_encoder.modules() if isinstance(norm, nn.BatchNorm2d)]
        for group in optimizers[0].param_groups:
            group["params"] = [parameter for parameter in group["params"] if parameter not in set(biases)]
        rate = 0.053 * recipe.batch_size  # the record's loss is a sum over the batch, ours a mean
        optimizers.append(torch.optim.SGD(biases, rate, momentum=0.85, weight_decay=2e-6 / 0.053, nesterov=True))
    return optimizers


def changed(config: Config, changes: Row) -> Config:
    """A recipe or an architecture with the changes that are fields of it."""
    return replace(config, **{one.name: changes[one.name] for one in fields(config) if one.name in changes})


def train(changes: Row, training: ImageTextDataset, epochs: int, seed: int) -> tuple[Run, float]:
    """A trained variant, and the images per second of its training."""
    half = tuple(width // 2 for width in PRESETS["medium"].resnet_widths)
    changes = {"epochs": epochs, "batch_size": BATCH_SIZE, "resnet_widths": half} | changes
    recipe = changed(loop.RECIPES["medium"], changes)
    config = new_config("", "medium", seed, recipe, training)
    config = replace(config, model=changed(config.model, changes))
    run, loader, _, caption_tokens = prepare(config, training, CPU)
    model = run.model
    assert isinstance(model.image_encoder, ResNet)
    model.image_encoder = Tower(model.image_encoder, changes)
    if "supervised" in changes:
        model.image_projection = nn.Linear(model.image_encoder.width, len(training.class_names))
    optimizers = changed_optimizers(model, recipe, changes)
    started = time.perf_counter()
    with patch.multiple(  # where `train_epoch` looks them up
        loop,
        batch_loss=classification_loss if "supervised" in changes else loop.batch_loss,
        learning_rate_factor=straight_fall if "straight" in changes else loop.learning_rate_factor,
    ):
        for epoch in range(epochs):
            seed_epoch(seed, epoch)
            steps = loop.train_epoch(model, loader, optimizers, caption_tokens, recipe, epoch)
            watch(steps, f"epoch {epoch + 1}/{epochs}", len(loader), loader.batch_size)
    return run, epochs * len(loader) * loader.batch_size / (time.perf_counter() - started)


@torch.inference_mode()
def class_logits(run: Run, dataset: ImageTextDataset, supervised: bool) -> Tensor:
    """How well each class fits each image (N, classes): the outputs of the head, or the scaled cosines with the captions."""
    if not supervised:
        texts = class_features(run.model, run.tokenizer, dataset.class_names, dataset.templates[:1])
        return run.model.logit_scale.exp() * encode_images(run.model, dataset.images) @ texts.T
    with evaluating(run.model):
        return torch.cat([run.model.encode_image(normalize(images)) for images in dataset.images.split(500)])


def measure(name: str, splits: dict[str, ImageTextDataset], epochs: int, seed: int) -> Row:
    """A row of the log. The loss is the cross-entropy of `class_logits`, with the label smoothing of the training."""
    run, images_per_second = train(VARIANTS[name], splits["train"], epochs, seed)
    validation, smoothing = splits["validation"], run.config.recipe["label_smoothing"]
    logits = class_logits(run, validation, "supervised" in VARIANTS[name])
    top1 = (logits.argmax(dim=1) == validation.labels).double().mean().item()
    targets = smoothing / logits.shape[1] + (1 - smoothing) * F.one_hot(validation.labels, logits.shape[1])
    loss_above_floor = F.cross_entropy(logits, targets) - torch.special.entr(targets).sum(dim=1).mean()
    return {
        "name": name,
        "changes": VARIANTS[name],
        "epochs": epochs,
        "widths": run.config.model.resnet_widths,
        "pictures": len(splits["train"]),
        "seed": seed,
        "validation_top1": round(top1, 4),
        "standard_error": round(math.sqrt(top1 * (1 - top1) / len(validation)), 4),
        "loss_above_floor": round(loss_above_floor.item(), 4),
        "images_per_second": round(images_per_second),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def few(training: ImageTextDataset) -> dict[str, ImageTextDataset]:
    """`TRAINED` of the training pictures to train with, and `VALIDATED` others to validate with."""
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))
    parts = {"validation": order[:VALIDATED], "train": order[VALIDATED : VALIDATED + TRAINED]}
    return {
        split: replace(training, images=training.images[rows], labels=training.labels[rows]) for split, rows in parts.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.ablation", description="Measure variants of the photo recipe.")
    parser.add_argument("dataset", help='"cifar10", or the path of an archive or folder of class folders')
    parser.add_argument("log", type=Path, help="file to which each row is added; a row that it has is not measured again")
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=f"default: all, which are {', '.join(VARIANTS)}")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_intermixed_args()
    names = options.variants or list(VARIANTS)
    for name in names:
        if name not in VARIANTS:
            raise UserError(f"there is no variant {name!r}: choose from {', '.join(VARIANTS)}")
    lines = options.log.read_text().splitlines() if options.log.exists() else []
    done = {(row["name"], row["epochs"], row["seed"]) for row in map(json.loads, lines)}
    splits = few(load_splits(options.dataset, PRESETS["medium"].image_size, splits=["train"])["train"])
    for name in names:
        if (name, options.epochs, options.seed) not in done:
            row = measure(name, splits, options.epochs, options.seed)
            with options.log.open("a") as log:
                log.write(json.dumps(row) + "\n")
            print(name, row["validation_top1"], "±", row["standard_error"], flush=True)


if __name__ == "__main__":
    run_command(main)
