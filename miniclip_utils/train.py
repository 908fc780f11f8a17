"""The training run: `python -m miniclip_utils.train --dataset shapes --out runs/shapes`."""

import argparse
import json
import math
import os
import platform
import shlex
import sys
import time
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .checkpoint import (
    Run,
    RunConfig,
    load_checkpoint,
    new_run,
    read_config,
    save_checkpoint,
    save_model,
    write_config,
)
from .cli import run_command
from .data import BatchLoader, ImageTextDataset, load_splits, normalize
from .device import device_name, find_device
from .distributed import own_share, process_group, rank, world_size
from .errors import UserError
from .evaluate import zero_shot_accuracy
from .files import write_file, write_json
from .image_encoder import ResNet, whiten_stem
from .loop import RECIPES, Recipe, tokenize_captions, train_epoch
from .model import PRESETS, MiniCLIP
from .optimizers import make_optimizers
from .prompts import fill
from .tokenizer import WordTokenizer

Splits = dict[str, ImageTextDataset]


def default_preset(dataset: str) -> str:
    """The preset that suits a dataset."""
    return "small" if dataset == "shapes" else "medium"


def train(
    dataset: str,
    out: str | Path,
    preset: str | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    skip_bad_images: bool = False,
    **changes: Any,
) -> Run:
    """Trains a model from scratch, and writes a run. Under `torchrun` all processes train it, and the first one writes.

    Args:
        dataset: see `load_dataset`.
        out: folder for `model.safetensors`, `config.json`, `log.jsonl` (a line for each epoch) and `metrics.json`.
        preset: a name in `RECIPES`; by default the one that suits the dataset.
        seed: fixes the weights at the start, the order of the batches and the augmentation.
        device: "cpu", "cuda", "mps"; by default the fastest that is there.
        skip_bad_images: see `load_dataset`.
        changes: fields of `Recipe` in which this run differs from its preset, such as `epochs=20`.

    Returns:
        the run; only the first process has its metrics.

    Raises:
        UserError: bad data; or `out` holds a run already; or the device does not work; or the loss is no longer a number.
    """
    out = Path(os.path.expanduser(out))
    if (out / "config.json").exists():
        raise UserError(f"{str(out)!r} holds a run already: go on with it (--resume), or choose another folder (--out)")
    device = find_device(device)
    preset = preset or default_preset(dataset)
    if preset not in RECIPES:
        raise UserError(f"there is no preset {preset!r} to train: choose one of {', '.join(RECIPES)}")
    if abs(seed) >= 2**42:  # each epoch has a seed of its own, about a million times larger
        raise UserError(f"the seed {seed} is too large: choose one below {2**42:,}")
    recipe = replace(RECIPES[preset], **changes)
    splits = load_splits(dataset, PRESETS[preset].image_size, skip_bad_images=skip_bad_images)
    check_batches(recipe, splits["train"], dataset)
    config = new_config(dataset, preset, seed, recipe, splits["train"])
    if rank() == 0:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {str(out)!r} ({error.strerror}): choose another with --out") from error
        write_config(config, out)
    return fit(config, splits, out, device, resuming=False)


def resume(out: str | Path, device: str | torch.device | None = None, skip_bad_images: bool = False) -> Run:
    """Goes on with an interrupted run after its last whole epoch, to the weights that it would have reached anyway.

    Raises:
        UserError: `out` holds no run, or one that has ended, or one whose data has other classes now; or the device does
            not work.
    """
    out = Path(os.path.expanduser(out))
    device = find_device(device)
    config = read_config(out)
    if config.recipe.keys() != {field.name for field in fields(Recipe)}:
        raise UserError(f"{str(out / 'config.json')!r} has a recipe that this version does not know: start anew elsewhere")
    if (out / "metrics.json").exists():
        raise UserError(f"the run {str(out)!r} has ended after its {config.recipe['epochs']} epochs: nothing is left to do")
    splits = load_splits(config.dataset, config.model.image_size, skip_bad_images=skip_bad_images)
    if splits["train"].class_names != config.class_names:
        raise UserError(f"{config.dataset!r} has other classes than when {str(out)!r} began: restore them, or start anew")
    check_batches(Recipe(**config.recipe), splits["train"], config.dataset)
    return fit(config, splits, out, device, resuming=(out / "checkpoint.safetensors").exists())


def check_batches(recipe: Recipe, training: ImageTextDataset, dataset: str) -> None:
    """Refuses data and batches that leave nothing to contrast, or that the processes cannot share."""
    if len(training.class_names) < 2:
        raise UserError(f"{dataset!r} has only the class {training.class_names[0]!r}: a contrast needs at least two classes")
    if recipe.batch_size < 2:
        raise UserError("a batch of one pair has nothing to contrast: choose a --batch-size of two or more")
    if recipe.batch_size % world_size():
        raise UserError(
            f"{world_size()} processes cannot share batches of {recipe.batch_size} evenly: choose another --batch-size"
        )
    if len(training) < 2 * world_size():
        raise UserError(f"{dataset!r} has too few training images: each process needs two or more")


def new_config(dataset: str, preset: str, seed: int, recipe: Recipe, training: ImageTextDataset) -> RunConfig:
    """All that fixes a run, the vocabulary of its captions included."""
    captions = [caption for template in training.templates for caption in fill(template, training.class_names)]
    tokenizer = WordTokenizer.from_captions(captions)
    return RunConfig(
        dataset=str(dataset),
        preset=preset,
        seed=seed,
        model=PRESETS[preset],
        recipe=asdict(recipe),
        class_names=training.class_names,
        templates=training.templates,
        vocabulary=tokenizer.vocabulary,
        context_length=tokenizer.context_length,
    )


def prepare(
    config: RunConfig, training: ImageTextDataset, device: torch.device
) -> tuple[Run, BatchLoader, list[torch.optim.Optimizer], Tensor]:
    """A run before its first step: seeded weights with a whitened stem, its batches, optimizers and tokenised captions."""
    recipe = Recipe(**config.recipe)
    torch.manual_seed(config.seed)
    run = new_run(config)
    if isinstance(run.model.image_encoder, ResNet):
        some = torch.randperm(len(training))[:5000]
        whiten_stem(run.model.image_encoder, normalize(training.images[some]))
    run.model.to(device).to(memory_format=torch.channels_last)  # the order in which convolutions are fastest
    share = replace(training, images=own_share(training.images), labels=own_share(training.labels))
    loader = BatchLoader(share, recipe.batch_size // world_size(), device, recipe.flip, recipe.shift)
    optimizers = make_optimizers(run.model, recipe.learning_rate, recipe.convolution_learning_rate, recipe.weight_decay)
    caption_tokens = tokenize_captions(run.tokenizer, config.class_names, config.templates).to(device)
    return run, loader, optimizers, caption_tokens


def fit(config: RunConfig, splits: Splits, out: Path, device: torch.device, resuming: bool) -> Run:
    """Trains a run to its end, from its start or from its checkpoint, and writes it as it goes."""
    recipe = Recipe(**config.recipe)
    run, loader, optimizers, caption_tokens = prepare(config, splits["train"], device)
    start: dict[str, Any] = {"epoch": 0, "seconds": 0.0, "log": []}
    progress = load_checkpoint(run.model, optimizers, out) if resuming else start
    for epoch in range(progress["epoch"], recipe.epochs):
        started = time.perf_counter()
        # Each epoch anew, so that a resumed one draws the same; and each process its own.
        torch.manual_seed(config.seed * 1_000_003 + rank() * 10_007 + epoch + 1)
        means = run_epoch(run.model, loader, optimizers, caption_tokens, recipe, epoch)
        if not math.isfinite(means["loss"]):
            raise UserError(
                f"the loss is no longer a number in epoch {epoch + 1} of {str(out)!r}: the {epoch} epochs before it are "
                "kept there; start anew in another folder with a smaller --learning-rate"
            )
        if rank() == 0:
            means["validation_top1"] = zero_shot_accuracy(run, splits["validation"])
            seconds = progress["seconds"] + time.perf_counter() - started
            line = {"epoch": epoch + 1, "seconds": round(seconds, 2), **means}
            progress = {"epoch": epoch + 1, "seconds": seconds, "log": [*progress["log"], line]}
            save_checkpoint(run.model, optimizers, out, progress)
            write_file(out / "log.jsonl", "".join(json.dumps(line) + "\n" for line in progress["log"]).encode())
    run.model.eval()
    if rank() == 0:
        images = recipe.epochs * len(loader) * loader.batch_size * world_size()
        finish(run, splits, out, device, progress["seconds"], images)
    return run


def run_epoch(
    model: MiniCLIP,
    loader: BatchLoader,
    optimizers: list[torch.optim.Optimizer],
    caption_tokens: Tensor,
    recipe: Recipe,
    epoch: int,
) -> dict[str, Any]:
    """Trains one epoch behind a progress bar. Returns a line for the log: means over the steps, and the speed."""
    started = time.perf_counter()
    losses, floors = [], []
    steps = train_epoch(model, loader, optimizers, caption_tokens, recipe, epoch)
    title = f"epoch {epoch + 1}/{recipe.epochs}"
    bar = tqdm(steps, desc=title, total=len(loader), unit="batch", leave=False, disable=rank() > 0)
    for loss, floor in bar:
        losses.append(loss)
        floors.append(floor)
        images_per_second = len(losses) * loader.batch_size * world_size() / (time.perf_counter() - started)
        if len(losses) % 10 == 0:  # to read a loss is to wait for the device
            bar.set_postfix_str(f"loss above floor {loss - floor:.3f}, {images_per_second:.0f} images/s")
            if not loss.isfinite():
                break
    loss_mean, floor_mean = torch.stack(losses).mean().item(), torch.stack(floors).mean().item()
    return {
        "loss": loss_mean,
        "loss_above_floor": loss_mean - floor_mean,
        "learning_rate": optimizers[0].param_groups[0]["lr"],
        "image_size": recipe.image_size(epoch, model.config.image_size),
        "logit_scale": model.logit_scale.exp().item(),
        "images_per_second": round(images_per_second, 1),
    }


def finish(run: Run, splits: Splits, out: Path, device: torch.device, seconds: float, images: int) -> None:
    """Measures a run on the test pictures after it was trained on so many images, and writes its weights and metrics."""
    config = run.config
    run.metrics = {
        "dataset": config.dataset,
        "command": command(config),
        "top1": zero_shot_accuracy(run, splits["test"]),
        "held_out_top1": zero_shot_accuracy(run, splits["held_out"]) if "held_out" in splits else None,
        "train_seconds": round(seconds, 2),
        "images_per_second": round(images / seconds, 1),
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "device": device_name(device),
        "processes": world_size(),
        "seed": config.seed,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", "miniclip-utils")}},
    }
    save_model(run.model, out)
    write_json(out / "metrics.json", run.metrics)
    (out / "checkpoint.safetensors").unlink(missing_ok=True)


def command(config: RunConfig) -> str:
    """The command line that repeats a run."""
    launcher = "python" if world_size() == 1 else f"torchrun --nproc_per_node {world_size()}"
    return (
        f"{launcher} -m miniclip_utils.train --dataset {shlex.quote(config.dataset)} --preset {config.preset} "
        f"--epochs {config.recipe['epochs']} --batch-size {config.recipe['batch_size']} "
        f"--learning-rate {config.recipe['learning_rate']} --seed {config.seed}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m miniclip_utils.train", description="Train a mini-CLIP from scratch.")
    parser.add_argument("--dataset", help='"shapes", "cifar10", or the path of a folder or archive (default: shapes)')
    parser.add_argument(
        "--preset", choices=sorted(RECIPES), help="size of the model (default: small for shapes, else medium)"
    )
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/ and the name of the dataset)")
    parser.add_argument("--epochs", type=int, help="passes over the training images (default: the preset's)")
    parser.add_argument("--batch-size", type=int, help="pairs in a batch (default: the preset's)")
    parser.add_argument("--learning-rate", type=float, help="its peak (default: the preset's)")
    parser.add_argument("--seed", type=int, help="fixes all random choices (default: 0)")
    parser.add_argument("--device", help='"cpu", "cuda" or "mps" (default: the fastest that is there)')
    parser.add_argument("--skip-bad-images", action="store_true", help="leave out files that cannot be read, with a warning")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out")
    options = parser.parse_args()

    out = options.out or Path("runs") / Path(options.dataset or "shapes").name.split(".")[0]
    changes = {name: getattr(options, name) for name in ("epochs", "batch_size", "learning_rate")}
    changes = {name: value for name, value in changes.items() if value is not None}
    for name, value in changes.items():
        if not 0 < value < math.inf:
            raise UserError(f"--{name.replace('_', '-')} {value} is not above zero")
    try:
        with process_group():
            if options.resume:
                if changes or any(value is not None for value in (options.dataset, options.preset, options.seed)):
                    raise UserError(
                        "a resumed run keeps its settings: give --resume with --out, and perhaps --device, alone"
                    )
                run = resume(out, options.device, options.skip_bad_images)
            else:
                dataset = "shapes" if options.dataset is None else options.dataset
                settings = options.preset, options.seed or 0, options.device, options.skip_bad_images
                run = train(dataset, out, *settings, **changes)
    except KeyboardInterrupt:
        begun = os.path.exists(os.path.expanduser(out / "config.json"))
        kept = f": what whole epochs reached is kept; go on with --resume --out {shlex.quote(str(out))}"
        print(f"stopped{kept if begun else ' before the run began'}", file=sys.stderr)
        sys.exit(130)
    if run.metrics is None:  # in all processes but the first
        return
    print(json.dumps(run.metrics, indent=2))
    print(f"The run is in {out}. Use it: python -m miniclip_utils.inference --run {shlex.quote(str(out))} IMAGE")


if __name__ == "__main__":
    run_command(main)
