"""The training run: `python -m miniclip_utils.train --dataset shapes --out runs/shapes`."""

import argparse
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
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
from .data import BatchLoader, ImageTextDataset, load_dataset, normalize
from .device import device_name, find_device, has_fast_bfloat16
from .distributed import gather, processes, rank, world_size
from .errors import UserError
from .evaluate import zero_shot_accuracy
from .files import write_file, write_json
from .image_encoder import ResNet, whiten_stem
from .losses import loss_floor, multi_positive_loss
from .model import PRESETS, MiniCLIP
from .optimizers import learning_rate_factor, make_optimizers
from .prompts import fill
from .tokenizer import WordTokenizer


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Args:
        epochs: passes over the training images.
        batch_size: pairs in a batch.
        learning_rate: its peak, reached after the warm-up, for AdamW.
        convolution_learning_rate: its peak for Muon, which trains the convolutions of a ResNet.
        weight_decay: of AdamW's matrices; gains, biases and the scale have none.
        warmup: share of all steps in which the learning rate rises from zero.
        label_smoothing: see `multi_positive_loss`.
        flip, shift: augmentation, see `augment`.
        image_sizes: (share of all epochs, pixels) pairs: until that share, images are shrunk to that many pixels.
            Small images cost a fraction of the time, and show less.
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
    image_sizes: tuple[tuple[float, int], ...] = ()


RECIPES = {
    "small": Recipe(epochs=3, batch_size=128),
    "medium": Recipe(epochs=12, convolution_learning_rate=0.15, label_smoothing=0.1, image_sizes=((0.15, 24),)),
    "vit-small": Recipe(epochs=20, learning_rate=1e-3),
}


def default_preset(dataset: str) -> str:
    """The preset that suits a dataset."""
    return "small" if dataset == "shapes" else "medium"


def shrink(images: Tensor, size: int) -> Tensor:
    """Images (N, 3, H, W) brought to `size` pixels, smoothed so that nothing flickers."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def contrastive_step(
    model: MiniCLIP, images: Tensor, labels: Tensor, caption_tokens: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """The loss of one batch, each image with a caption in a random wording.

    Each distinct caption is encoded once, however many images share it, and its feature handed to all of them.

    Args:
        images: normalised (B, 3, H, W).
        labels: int64 (B,).
        caption_tokens: int64 (classes, templates, L).
        label_smoothing: see `multi_positive_loss`.
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


class _ContrastiveStep(nn.Module):
    """`contrastive_step` as a module: DistributedDataParallel averages the gradients of what passes its `forward`."""

    def __init__(self, model: MiniCLIP):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor, caption_tokens: Tensor, label_smoothing: float) -> Tensor:
        return contrastive_step(self.model, images, labels, caption_tokens, label_smoothing)


def train(
    dataset: str,
    out: str | Path,
    preset: str | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    skip_bad_images: bool = False,
) -> Run:
    """Trains a model from scratch, and writes a run. Under `torchrun` all processes train it, and the first one writes.

    Args:
        dataset: see `load_dataset`.
        out: folder for `model.safetensors`, `config.json`, `log.jsonl` (a line for each epoch) and `metrics.json`.
        preset: a name in `PRESETS`; "small" for the shapes, else "medium".
        recipe: how to train; by default the preset's own.
        seed: fixes the weights at the start, the order of the batches and the augmentation.
        device: "cpu", "cuda", "mps"; by default the fastest that is there.
        skip_bad_images: see `load_dataset`.

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
    splits = load_splits(dataset, PRESETS[preset].image_size, skip_bad_images)
    training = splits["train"]
    if len(training.class_names) < 2:
        raise UserError(f"{dataset!r} has only the class {training.class_names[0]!r}: a contrast needs at least two classes")
    captions = [caption for template in training.templates for caption in fill(template, training.class_names)]
    tokenizer = WordTokenizer.from_captions(captions)
    config = RunConfig(
        dataset=str(dataset),
        preset=preset,
        seed=seed,
        model=PRESETS[preset],
        recipe=asdict(recipe or RECIPES[preset]),
        class_names=training.class_names,
        templates=training.templates,
        vocabulary=tokenizer.vocabulary,
        context_length=tokenizer.context_length,
    )
    return _fit(config, splits, out, device, resume=False)


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
    splits = load_splits(config.dataset, config.model.image_size, skip_bad_images)
    if splits["train"].class_names != config.class_names:
        raise UserError(f"{config.dataset!r} has other classes than when {str(out)!r} began: restore them, or start anew")
    return _fit(config, splits, out, device, resume=(out / "checkpoint.safetensors").exists())


def load_splits(dataset: str, image_size: int, skip_bad_images: bool) -> dict[str, ImageTextDataset]:
    """All splits of a dataset that a run needs, see `load_dataset`."""
    names = ["train", "validation", "test"] + (["held_out"] if dataset == "shapes" else [])
    return {name: load_dataset(dataset, name, image_size, skip_bad_images=skip_bad_images) for name in names}


def _share(dataset: ImageTextDataset) -> ImageTextDataset:
    """This process's part of a dataset: every P-th image, as many as each of the P processes can have."""
    rows = slice(rank(), len(dataset) // world_size() * world_size(), world_size())
    return replace(dataset, images=dataset.images[rows], labels=dataset.labels[rows])


def _fit(config: RunConfig, splits: dict[str, ImageTextDataset], out: Path, device: torch.device, resume: bool) -> Run:
    """Trains a run to its end, from its start or from its checkpoint."""
    recipe = Recipe(**config.recipe)
    if recipe.batch_size < 2:
        raise UserError("a batch of one pair has nothing to contrast: choose a --batch-size of two or more")
    if recipe.batch_size % world_size():
        raise UserError(
            f"{world_size()} processes cannot share batches of {recipe.batch_size} evenly: choose another --batch-size"
        )
    if len(splits["train"]) < 2 * world_size():
        raise UserError(f"{config.dataset!r} has too few training images: each process needs two or more")
    torch.manual_seed(config.seed)
    run = new_run(config)
    if isinstance(run.model.image_encoder, ResNet):
        some = torch.randperm(len(splits["train"]))[:5000]
        whiten_stem(run.model.image_encoder, normalize(splits["train"].images[some]))
    run.model.to(device).to(memory_format=torch.channels_last)  # the order in which convolutions are fastest
    loader = BatchLoader(_share(splits["train"]), recipe.batch_size // world_size(), device, recipe.flip, recipe.shift)
    optimizers = make_optimizers(run.model, recipe.learning_rate, recipe.convolution_learning_rate, recipe.weight_decay)
    captions = [fill(template, config.class_names) for template in config.templates]
    caption_tokens = torch.stack([run.tokenizer(texts) for texts in captions], dim=1).to(device)  # (classes, templates, L)

    step: nn.Module = _ContrastiveStep(run.model)
    if world_size() > 1:
        step = DistributedDataParallel(step)

    epoch, seconds = 0, 0.0
    log: list[dict[str, Any]] = []
    if resume:
        progress = load_checkpoint(run.model, optimizers, out)
        epoch, seconds, log = progress["epoch"], progress["seconds"], progress["log"]
    elif rank() == 0:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {str(out)!r} ({error.strerror}): choose another with --out") from error
        write_config(config, out)

    while epoch < recipe.epochs:
        started = time.perf_counter()
        # Each epoch anew, so that a resumed one draws the same; and each process its own.
        torch.manual_seed(config.seed * 1_000_003 + rank() * 10_007 + epoch + 1)
        entry = _train_epoch(run.model, step, loader, optimizers, caption_tokens, recipe, epoch)
        if not math.isfinite(entry["loss"]):
            raise UserError(
                f"the loss is no longer a number in epoch {epoch + 1} of {str(out)!r}: the {epoch} epochs before it are "
                "kept there; start anew in another folder with a smaller --learning-rate"
            )
        epoch += 1
        if rank() > 0:
            continue
        entry["validation_top1"] = zero_shot_accuracy(run, splits["validation"])
        seconds += time.perf_counter() - started
        log.append({"epoch": epoch, "seconds": round(seconds, 2), **entry})
        save_checkpoint(run.model, optimizers, out, {"epoch": epoch, "seconds": seconds, "log": log})
        write_file(out / "log.jsonl", "".join(json.dumps(line) + "\n" for line in log).encode())

    run.model.eval()
    if rank() > 0:
        return run
    run.metrics = {
        "dataset": config.dataset,
        "command": command(config),
        "top1": zero_shot_accuracy(run, splits["test"]),
        "held_out_top1": zero_shot_accuracy(run, splits["held_out"]) if "held_out" in splits else None,
        "train_seconds": round(seconds, 2),
        "images_per_second": round(recipe.epochs * len(loader) * loader.batch_size * world_size() / seconds, 1),
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "device": device_name(device),
        "processes": world_size(),
        "seed": config.seed,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", "miniclip-utils")}},
    }
    save_model(run.model, out)
    write_json(out / "metrics.json", run.metrics)
    (out / "checkpoint.safetensors").unlink(missing_ok=True)
    return run


def command(config: RunConfig) -> str:
    """The command line that repeats a run."""
    launcher = "python" if world_size() == 1 else f"torchrun --nproc_per_node {world_size()}"
    return (
        f"{launcher} -m miniclip_utils.train --dataset {shlex.quote(config.dataset)} --preset {config.preset} "
        f"--epochs {config.recipe['epochs']} --batch-size {config.recipe['batch_size']} "
        f"--learning-rate {config.recipe['learning_rate']} --seed {config.seed}"
    )


def _train_epoch(
    model: MiniCLIP,
    step: nn.Module,
    loader: BatchLoader,
    optimizers: list[torch.optim.Optimizer],
    caption_tokens: Tensor,
    recipe: Recipe,
    epoch: int,
) -> dict[str, Any]:
    """One pass over the data. Returns the means of what the log holds."""
    model.train()
    total_steps = recipe.epochs * len(loader)
    warmup_steps = max(1, round(recipe.warmup * total_steps))
    peaks = [(optimizer, optimizer.defaults["lr"]) for optimizer in optimizers]
    image_size = next((size for share, size in recipe.image_sizes if epoch < share * recipe.epochs), model.config.image_size)
    started = time.perf_counter()
    losses, floors = [], []
    bar = tqdm(loader, desc=f"epoch {epoch + 1}/{recipe.epochs}", unit="batch", leave=False, disable=rank() > 0)
    for index, (images, labels) in enumerate(bar):
        factor = learning_rate_factor(epoch * len(loader) + index, total_steps, warmup_steps)
        for optimizer, peak in peaks:
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
        loss = step(shrink(images, image_size), labels, caption_tokens, recipe.label_smoothing)
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        model.clamp_logit_scale()
        losses.append(loss.detach())
        floors.append(loss_floor(gather(labels), recipe.label_smoothing))
        if index % 10 == 9:
            per_second = (index + 1) * loader.batch_size * world_size() / (time.perf_counter() - started)
            bar.set_postfix_str(f"loss above floor {losses[-1] - floors[-1]:.3f}, {per_second:.0f} images/s")
            if not losses[-1].isfinite():
                break
    loss_mean, floor_mean = torch.stack(losses).mean().item(), torch.stack(floors).mean().item()
    return {
        "loss": loss_mean,
        "loss_above_floor": loss_mean - floor_mean,
        "learning_rate": optimizers[0].param_groups[0]["lr"],
        "image_size": image_size,
        "logit_scale": model.logit_scale.exp().item(),
        "images_per_second": round(len(losses) * loader.batch_size * world_size() / (time.perf_counter() - started), 1),
    }


def _positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return value

    parse.__name__ = "number"  # what argparse calls the type in its messages
    return parse


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m miniclip_utils.train", description="Train a mini-CLIP from scratch.")
    parser.add_argument("--dataset", help='"shapes", "cifar10", or the path of a folder or archive (default: shapes)')
    parser.add_argument(
        "--preset", choices=sorted(RECIPES), help="size of the model (default: small for shapes, else medium)"
    )
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/ and the name of the dataset)")
    parser.add_argument("--epochs", type=_positive(int), help="passes over the training images (default: the preset's)")
    parser.add_argument("--batch-size", type=_positive(int), help="pairs in a batch (default: the preset's)")
    parser.add_argument("--learning-rate", type=_positive(float), help="its peak (default: the preset's)")
    parser.add_argument("--seed", type=int, help="fixes all random choices (default: 0)")
    parser.add_argument("--device", help='"cpu", "cuda" or "mps" (default: the fastest that is there)')
    parser.add_argument("--skip-bad-images", action="store_true", help="leave out files that cannot be read, with a warning")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out")
    options = parser.parse_args()

    out = options.out or Path("runs") / Path(options.dataset or "shapes").name.split(".")[0]
    recipe_options = {name: getattr(options, name) for name in ("epochs", "batch_size", "learning_rate")}
    changes = {name: value for name, value in recipe_options.items() if value is not None}
    try:
        with processes():
            if options.resume:
                if changes or any(value is not None for value in (options.dataset, options.preset, options.seed)):
                    raise UserError(
                        "a resumed run keeps its settings: give --resume with --out, and perhaps --device, alone"
                    )
                run = resume(out, options.device, options.skip_bad_images)
            else:
                dataset = "shapes" if options.dataset is None else options.dataset
                preset = options.preset or default_preset(dataset)
                recipe = replace(RECIPES[preset], **changes)
                run = train(dataset, out, preset, recipe, options.seed or 0, options.device, options.skip_bad_images)
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
