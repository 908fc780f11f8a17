"""The training run: `python -m miniclip_utils.train --dataset shapes --out runs/shapes`."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from .checkpoint import MOST_SEEDS, Run, RunConfig, bundled_runs, is_seed, load_run, read_config, write_config
from .cli import run_command
from .data import ImageTextDataset, load_splits
from .device import find_device
from .distributed import process_group, rank, world_size
from .errors import UserError
from .fit import fit, new_config, verdict
from .loop import RECIPES, Recipe, recipe_for
from .model import PRESETS
from .prompts import check_templates

MANY_PICTURES = 10_000  # from here on a folder is trained with the preset "medium"


def default_preset(dataset: str, pictures: int) -> str:
    """The preset that suits a dataset with so many training pictures."""
    return "small" if dataset == "shapes" or pictures < MANY_PICTURES else "medium"


def start_config(start: str, preset: str | None) -> RunConfig:
    """The config of the run to start from; a `UserError` if it does not go with the preset that was asked for."""
    config = load_run(start).config
    if config.preset not in RECIPES:
        raise UserError(f"the run {start!r} has the preset {config.preset!r}, for which there is no recipe: start elsewhere")
    if preset not in (None, config.preset):
        raise UserError(f"the run {start!r} is of the preset {config.preset!r}, not {preset!r}: leave --preset out")
    return config


def plan(recipe: Recipe, preset: str, training: ImageTextDataset, start: str | None) -> str:
    """What a run is about to do, in one line."""
    batch_size = min(recipe.batch_size, len(training))
    return (
        f"{len(training):,} training pictures of {len(training.class_names):,} classes: preset {preset}"
        f"{'' if start is None else f' from {start!r}'}, "
        f"{recipe.epochs:,} epoch{'s' if recipe.epochs > 1 else ''} in batches of {batch_size:,}, "
        f"{recipe.epochs * (len(training) // batch_size):,} steps"
    )


def train(
    dataset: str,
    out: str | Path,
    preset: str | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    skip_bad_images: bool = False,
    start: str | Path | None = None,
    validation: bool = True,
    say: Callable[[str], object] = lambda line: None,
    **changes: Any,
) -> Run:
    """Trains a model, and writes a run. Under `torchrun` all processes train it, and the first one writes.

    Args:
        dataset: see `load_dataset`.
        out: folder for `model.safetensors`, `config.json`, `log.jsonl` (a line for each epoch) and `metrics.json`.
        preset: a name in `RECIPES`; by default that of `start`, or the one that suits the dataset.
        seed: fixes the weights at the start, the order of the batches and the augmentation.
        device: "cpu", "cuda", "mps"; by default the fastest that is there.
        skip_bad_images: see `load_dataset`.
        start: begin with the weights of this run, a name or folder as in `load_run`, see `start_from`; by default from
            scratch.
        validation: False trains on the validation pictures, too, once all choices are made; no epoch is then validated.
        say: takes the one line that says what was chosen, before the first step.
        changes: fields of `Recipe` in which this run differs from what `recipe_for` chooses, such as `epochs=20`.

    Returns:
        the run; only the first process has its metrics.

    Raises:
        UserError: bad data; or `out` holds a run already; or the device does not work; or the loss is no longer a number.
    """
    out = Path(os.path.expanduser(out))
    if (out / "config.json").exists():
        raise UserError(f"{str(out)!r} holds a run already: go on with it (--resume), or choose another folder (--out)")
    device = find_device(device)
    origin = None
    if start is not None:
        if str(start) not in bundled_runs():
            start = os.path.abspath(os.path.expanduser(start))  # to be found again by --resume, wherever that is called
        origin = start_config(str(start), preset)
        preset = origin.preset
    if preset is not None and preset not in RECIPES:
        raise UserError(f"there is no preset {preset!r} to train: choose one of {', '.join(RECIPES)}")
    if not is_seed(seed):
        raise UserError(f"the seed {seed} is too large: choose one below {MOST_SEEDS:,}")
    model = origin.model if origin else PRESETS[preset or "medium"]
    splits = load(dataset, model.image_size, skip_bad_images, validation)
    training = splits["train"]
    preset = preset or default_preset(dataset, len(training))
    recipe = replace(recipe_for(preset, len(training), from_run=origin is not None), **changes)
    check_batches(recipe, training, dataset)
    config = replace(new_config(dataset, preset, seed, recipe, training), validation=validation)
    if origin:
        config = replace(config, model=origin.model, start=str(start))
    if rank() == 0:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {str(out)!r} ({error.strerror}): choose another with --out") from error
        write_config(config, out)
        say(plan(recipe, preset, training, config.start))
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
    try:
        recipe = Recipe(**config.recipe)
        check_templates(config.templates)
    except UserError as error:
        raise UserError(f"{str(out / 'config.json')!r} cannot be resumed: {error}") from error
    if (out / "metrics.json").exists():
        raise UserError(f"the run {str(out)!r} has ended after its {config.recipe['epochs']} epochs: nothing is left to do")
    splits = load(config.dataset, config.model.image_size, skip_bad_images, config.validation)
    if splits["train"].class_names != config.class_names:
        raise UserError(f"{config.dataset!r} has other classes than when {str(out)!r} began: restore them, or start anew")
    check_batches(recipe, splits["train"], config.dataset)
    return fit(config, splits, out, device, resuming=(out / "checkpoint.safetensors").exists())


def load(dataset: str, image_size: int, skip_bad_images: bool, validation: bool) -> dict[str, ImageTextDataset]:
    """The splits of a run: without a validation split, its pictures are training pictures."""
    splits = load_splits(dataset, image_size, skip_bad_images=skip_bad_images)
    if not validation:
        training, more = splits["train"], splits.pop("validation")
        images, labels = torch.cat([training.images, more.images]), torch.cat([training.labels, more.labels])
        splits["train"] = replace(training, images=images, labels=labels)
    return splits


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
    if recipe.shift >= (image_size := training.images.shape[-1]):
        raise UserError(f"images of {image_size} pixels cannot be moved by {recipe.shift}: choose a smaller shift")
    if len(training) < 2 * world_size():
        raise UserError(f"{dataset!r} has too few training images: each process needs two or more")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m miniclip_utils.train", description="Train a mini-CLIP.")
    parser.add_argument("--dataset", help='"shapes", "cifar10", or the path of a folder or archive (default: shapes)')
    parser.add_argument(
        "--preset",
        choices=sorted(RECIPES),
        help=f"size of the model (default: small for shapes and below {MANY_PICTURES:,} pictures, else medium)",
    )
    parser.add_argument(
        "--from", dest="start", help='start from a trained model: "cifar10", "shapes", or the folder of a run'
    )
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/ and the name of the dataset)")
    parser.add_argument("--epochs", type=int, help="passes over the training images (default: by their number)")
    parser.add_argument("--batch-size", type=int, help="pairs in a batch (default: by their number)")
    parser.add_argument("--learning-rate", type=float, help="its peak (default: the preset's)")
    parser.add_argument(
        "--no-validation",
        dest="validation",
        action="store_false",
        help="train on the validation pictures, too, once all is chosen; no epoch is then validated",
    )
    parser.add_argument("--seed", type=int, help="fixes all random choices (default: 0)")
    parser.add_argument("--device", help='"cpu", "cuda" or "mps" (default: the fastest that is there)')
    parser.add_argument("--skip-bad-images", action="store_true", help="leave out files that cannot be read, with a warning")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out")
    options = parser.parse_args()

    out = options.out or Path("runs") / Path(options.dataset or "shapes").name.split(".")[0]
    changes = {name: getattr(options, name) for name in ("epochs", "batch_size", "learning_rate")}
    changes = {name: value for name, value in changes.items() if value is not None}
    try:
        with process_group():
            Recipe(**changes)  # refuses what no training can be made of, before any data is read
            if options.resume:
                given = options.dataset, options.preset, options.seed, options.start
                if changes or not options.validation or any(value is not None for value in given):
                    raise UserError(
                        "a resumed run keeps its settings: give --resume with --out, and perhaps --device, alone"
                    )
                run = resume(out, options.device, options.skip_bad_images)
            else:
                dataset = "shapes" if options.dataset is None else options.dataset
                run = train(
                    dataset,
                    out,
                    options.preset,
                    options.seed or 0,
                    options.device,
                    options.skip_bad_images,
                    options.start,
                    options.validation,
                    lambda line: print(line, file=sys.stderr),
                    **changes,
                )
    except KeyboardInterrupt:
        begun = os.path.exists(os.path.expanduser(out / "config.json"))
        kept = f": what whole epochs reached is kept; go on with --resume --out {shlex.quote(str(out))}"
        print(f"stopped{kept if begun else ' before the run began'}", file=sys.stderr)
        sys.exit(130)
    if run.metrics is None:  # in all processes but the first
        return
    print(json.dumps(run.metrics, indent=2))
    sentence, is_clear = verdict(run.metrics)
    print(sentence) if is_clear else print(f"warning: {sentence}", file=sys.stderr)
    print(f"The run is in {out}. Use it: python -m miniclip_utils.inference --run {shlex.quote(str(out))} IMAGE")


if __name__ == "__main__":
    run_command(main)
