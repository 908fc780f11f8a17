"""A run from its first step to its last: epochs, log and checkpoints, and the test at its end."""

import json
import math
import platform
import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .checkpoint import Run, RunConfig, load_checkpoint, load_run, new_run, save_checkpoint, save_model, start_from
from .data import BatchLoader, ImageTextDataset, normalize
from .device import device_name, keep_memory
from .distributed import own_share, rank, world_size
from .errors import UserError
from .evaluate import above_guessing, retrieval, zero_shot_accuracy
from .files import write_file, write_json
from .image_encoder import ResNet, whiten_stem
from .loop import Recipe, tokenize_captions, train_epoch
from .model import PRESETS
from .optimizers import make_optimizers
from .prompts import fill
from .tokenizer import WordTokenizer


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
    config: RunConfig, training: ImageTextDataset, device: torch.device, resuming: bool = False
) -> tuple[Run, BatchLoader, list[torch.optim.Optimizer], Tensor]:
    """A run before its first step: its batches, optimizers and tokenised captions.

    Its weights are seeded, with a whitened stem; those that its config's `start` has are taken from there, unless it is
    `resuming`: then its checkpoint is about to replace them all, and the run that it started from may be gone.
    """
    recipe = Recipe(**config.recipe)
    torch.manual_seed(config.seed)
    run = new_run(config)
    if isinstance(run.model.image_encoder, ResNet):
        some = torch.randperm(len(training))[:5000]
        whiten_stem(run.model.image_encoder, normalize(training.images[some]))
    if config.start is not None and not resuming:
        start_from(run, load_run(config.start))
    run.model.to(device).to(memory_format=torch.channels_last)  # the order in which convolutions are fastest
    share = replace(training, images=own_share(training.images), labels=own_share(training.labels))
    loader = BatchLoader(share, recipe.batch_size // world_size(), device, recipe.flip, recipe.shift, recipe.alternate)
    optimizers = make_optimizers(run.model, recipe.learning_rate, recipe.convolution_learning_rate, recipe.weight_decay)
    caption_tokens = tokenize_captions(run.tokenizer, config.class_names, config.templates).to(device)
    return run, loader, optimizers, caption_tokens


def fit(config: RunConfig, splits: dict[str, ImageTextDataset], out: Path, device: torch.device, resuming: bool) -> Run:
    """Trains a run to its end, from its start or from its checkpoint, and writes it as it goes."""
    recipe = Recipe(**config.recipe)
    if device.type == "cpu":
        keep_memory()
    run, loader, optimizers, caption_tokens = prepare(config, splits["train"], device, resuming)
    start: dict[str, Any] = {"epoch": 0, "seconds": 0.0, "log": []}
    progress = load_checkpoint(run.model, optimizers, out) if resuming else start
    for _ in range(progress["epoch"]):
        loader.next_epoch()
    for epoch in range(progress["epoch"], recipe.epochs):
        started = time.perf_counter()
        seed_epoch(config.seed, epoch)
        steps = train_epoch(run.model, loader, optimizers, caption_tokens, recipe, epoch)
        left = f", {(recipe.epochs - epoch) * progress['seconds'] / epoch:.0f} s left" if epoch and not rank() else ""
        title = f"epoch {epoch + 1}/{recipe.epochs}{left}"
        means = watch(steps, title, len(loader), loader.batch_size * world_size())
        if not math.isfinite(means["loss"]):
            raise UserError(
                f"the loss is no longer a number in epoch {epoch + 1} of {str(out)!r}: the {epoch} epochs before it are "
                "kept there; start anew in another folder with a smaller --learning-rate"
            )
        if rank() == 0:
            line = {
                "epoch": epoch + 1,
                **means,
                "learning_rate": optimizers[0].param_groups[0]["lr"],
                "logit_scale": run.model.logit_scale.exp().item(),
                "validation_top1": score(run, splits["validation"])["top1"] if "validation" in splits else None,
            }
            seconds = progress["seconds"] + time.perf_counter() - started
            log = [*progress["log"], line | {"seconds": round(seconds, 2)}]
            progress = {"epoch": epoch + 1, "seconds": seconds, "log": log}
            save_checkpoint(run.model, optimizers, out, progress)
            write_file(out / "log.jsonl", "".join(json.dumps(line) + "\n" for line in log).encode())
    run.model.eval()
    if rank() == 0:
        seconds = progress["seconds"]
        total = recipe.epochs * len(loader)
        speed = {
            "steps": total,
            "train_seconds": round(seconds, 2),
            "images_per_second": round(total * loader.batch_size * world_size() / seconds, 1),
        }
        finish(run, splits, out, device, speed)
    return run


def seed_epoch(seed: int, epoch: int) -> None:
    """Seeds each epoch anew, so that a resumed one draws the same numbers, and each process its own."""
    torch.manual_seed(seed * 1_000_003 + rank() * 10_007 + epoch + 1)


def watch(steps: Iterator[tuple[Tensor, Tensor]], title: str, batches: int, batch_size: int) -> dict[str, float]:
    """Runs the steps of an epoch behind a progress bar, and returns their means for the log."""
    started = time.perf_counter()
    losses, floors = [], []
    bar = tqdm(steps, title, batches, unit="batch", leave=False, disable=rank() > 0)
    for loss, floor in bar:
        losses.append(loss)
        floors.append(floor)
        if len(losses) % 10 == 0:  # to read a loss is to wait for the device
            per_second = len(losses) * batch_size / (time.perf_counter() - started)
            bar.set_postfix_str(f"loss above floor {loss - floor:.3f}, {per_second:.0f} images/s")
            if not loss.isfinite():
                break
    loss, floor = torch.stack(losses).mean().item(), torch.stack(floors).mean().item()
    per_second = len(losses) * batch_size / (time.perf_counter() - started)
    return {"loss": loss, "loss_above_floor": loss - floor, "images_per_second": round(per_second, 1)}


def score(run: Run, dataset: ImageTextDataset) -> dict[str, Any]:
    """How good a run is on one split.

    With classes, "top1" is the accuracy among all of them, and guessing names the most frequent one. With sentences, it is
    the fraction of pictures whose most similar sentence is one of their own, among those of the split.
    """
    if dataset.templates == ("{}",):
        found = retrieval(run, dataset)
        recall = found["image_to_text"]
        top1, images, guessing = recall["recall@1"], found["pictures"], recall["guessing"]["recall@1"]
    else:
        found = None
        top1, images = zero_shot_accuracy(run, dataset), len(dataset)
        guessing = dataset.labels.bincount().max().item() / images
    return {
        "top1": top1,
        "test_images": images,
        "guessing_top1": guessing,
        "above_guessing_top1": above_guessing(guessing, images) if guessing < 1 else None,
        "retrieval": found,
    }


def finish(run: Run, splits: dict[str, ImageTextDataset], out: Path, device: torch.device, speed: dict[str, float]) -> None:
    """Measures a run on the test images, and writes its weights and metrics, its speed among them."""
    config = run.config
    run.metrics = {
        "dataset": config.dataset,
        "command": command(config),
        **score(run, splits["test"]),
        "held_out_top1": zero_shot_accuracy(run, splits["held_out"]) if "held_out" in splits else None,
        **speed,
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "device": device_name(device),
        "processes": world_size(),
        "seed": config.seed,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", "miniclip-utils")}},
    }
    save_model(run.model, out)
    write_json(out / "metrics.json", run.metrics)
    (out / "checkpoint.safetensors").unlink(missing_ok=True)


def verdict(metrics: dict[str, Any]) -> tuple[str, bool]:
    """What the test of a run says, in a sentence or two, and whether that is clearly above guessing."""
    images = metrics["test_images"]
    if found := metrics.get("retrieval"):
        k = max(k for k in (1, 5, 10) if k == 1 or 3 * k <= found["sentences"])  # else guessing, too, finds nearly all
        there, back = found["image_to_text"], found["text_to_image"]
        share, guessing = there[f"recall@{k}"], there["guessing"][f"recall@{k}"]
        needed = above_guessing(guessing, images) if guessing < 1 else None
        what = f"have a sentence of their own among the {k} most similar of {found['sentences']:,}"
        more = (
            f" The way back, {back[f'recall@{k}']:.1%} of the sentences find a picture of theirs among {k}; "
            f"guessing reaches {back['guessing'][f'recall@{k}']:.1%}."
        )
    else:
        share, guessing, needed = metrics["top1"], metrics["guessing_top1"], metrics["above_guessing_top1"]
        what, more = "are classified correctly", ""
    error = math.sqrt(share * (1 - share) / images)
    measured = f"{share:.1%} ± {error:.1%} of {images:,} test pictures {what}; guessing reaches {guessing:.1%}.{more}"
    if needed is None:
        return f"{measured} So few test pictures cannot tell this model from guessing: add pictures", False
    if share < needed - 1e-6:  # a mean of 32 bits
        return (
            f"{measured} Below {needed:.1%} this may be guessing: add pictures, or start from a trained model (--from)"
        ), False
    return measured, True


def command(config: RunConfig) -> str:
    """The command line that repeats a run."""
    launcher = "python" if world_size() == 1 else f"torchrun --nproc_per_node {world_size()}"
    return (
        f"{launcher} -m miniclip_utils.train --dataset {shlex.quote(config.dataset)} --preset {config.preset} "
        f"--epochs {config.recipe['epochs']} --batch-size {config.recipe['batch_size']} "
        f"--learning-rate {config.recipe['learning_rate']} --seed {config.seed}"
        f"{'' if config.start is None else f' --from {shlex.quote(config.start)}'}"
        f"{'' if config.validation else ' --no-validation'}"
    )
