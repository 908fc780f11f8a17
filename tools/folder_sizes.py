"""Measures what a folder of so many photographs is good for: `python -m tools.folder_sizes cifar10_jpeg.tar.xz`.

Folders of three classes of CIFAR-10 are trained as `python -m miniclip_utils.train --dataset FOLDER` does it, without an
option, and tested on all 3,000 test pictures of these classes. Each seed has pictures of its own. The archive has the
classes in folders below `train/` and `test/`.

The model `cifar10` was trained on these classes, so to start from it would be no fair test of new ones. The model that
"from a photo model" starts from has the same architecture and was trained on the other seven classes alone, for six
epochs.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import torch

from miniclip_utils.checkpoint import write_config
from miniclip_utils.classroom.over_seeds import extend
from miniclip_utils.cli import run_command
from miniclip_utils.data import ImageTextDataset, load_splits
from miniclip_utils.fit import fit, new_config
from miniclip_utils.image_files import ImageFiles
from miniclip_utils.loop import RECIPES
from miniclip_utils.train import train

LOG = Path(__file__).parent.parent / "miniclip_utils/classroom/logs/folder_sizes.jsonl"
CLASSES = ("bird", "horse", "ship")
SIZES = (30, 100, 300, 1_000, 3_000)
CPU = torch.device("cpu")

Pictures = dict[tuple[str, str], list[bytes]]  # {(split, class): the content of its files, …}


def read_pictures(archive: str | Path, classes: tuple[str, ...] = CLASSES) -> Pictures:
    """The files of the classes as they are, in one pass over the archive."""
    files = ImageFiles(archive)
    found: Pictures = {(split, name): [] for split in ("train", "test") for name in classes}
    for name in files.files:
        path = PurePosixPath(name)
        key = path.parent.parent.name, path.parent.name
        if key in found:
            with files.open(name) as file:
                found[key].append(file.read())
    return found


def write_folder(pictures: Pictures, size: int, seed: int, folder: Path) -> None:
    """A folder of `size` training pictures, of each class about as many, none of them in that of another seed."""
    classes = sorted({name for _, name in pictures})
    for index, name in enumerate(classes):
        count = size // len(classes) + (index < size % len(classes))
        train_files = pictures["train", name]
        share = len(train_files) // 4  # for each of up to four seeds
        order = torch.randperm(len(train_files), generator=torch.Generator().manual_seed(index)).tolist()
        chosen = [train_files[place] for place in order[seed * share : seed * share + count]]
        if len(chosen) < count or count > share:
            raise ValueError(f"{name!r} has too few pictures for {size} with seed {seed}")
        for split, contents in (("train", chosen), ("test", pictures["test", name])):
            (folder / split / name).mkdir(parents=True)
            for number, content in enumerate(contents):
                (folder / split / name / f"{number:04}.jpg").write_bytes(content)


def train_start(archive: str | Path, out: Path) -> None:
    """The photo model that has not seen `CLASSES`."""
    others = {}
    for name, split in load_splits(archive).items():
        kept = [label for label, class_name in enumerate(split.class_names) if class_name not in CLASSES]
        rows = torch.isin(split.labels, torch.tensor(kept))
        labels = torch.searchsorted(torch.tensor(kept), split.labels[rows])
        others[name] = ImageTextDataset(split.images[rows], labels, tuple(split.class_names[label] for label in kept))
    recipe = replace(RECIPES["medium"], epochs=6)
    config = new_config("the other classes of CIFAR-10", "medium", 0, recipe, others["train"])
    out.mkdir(parents=True)
    write_config(config, out)
    fit(config, others, out, CPU, resuming=False)


def measure(pictures: Pictures, size: int, seed: int, start: Path | None) -> dict[str, object]:
    """One row: a folder is written, and trained by the command's own function with its defaults."""
    with TemporaryDirectory() as work:
        folder = Path(work) / "photos"
        write_folder(pictures, size, seed, folder)
        cpu_started = time.process_time()
        run = train(str(folder), Path(work) / "run", seed=seed, device=CPU, start=start)
        cpu_seconds = time.process_time() - cpu_started
        metrics, recipe = run.metrics or {}, run.config.recipe
    row: dict[str, object] = {"pictures": size, "seed": seed, "start": start and start.name, "preset": run.config.preset}
    row |= {"top1": round(metrics["top1"], 4), "test_images": metrics["test_images"]}
    row |= {name: recipe[name] for name in ("epochs", "batch_size", "learning_rate")} | {"steps": metrics["steps"]}
    row |= {"seconds": metrics["train_seconds"], "cpu_seconds": round(cpu_seconds, 1)}
    return row | {"threads": torch.get_num_threads(), "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.folder_sizes", description="Measure folders of few photographs.")
    parser.add_argument("archive", help="CIFAR-10 as an archive of images in class folders below train/ and test/")
    parser.add_argument("--seeds", type=int, default=3, help="at most four; a row that the log has is not measured again")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument(
        "--start", type=Path, default=Path("build/seven_classes"), help="a folder; trained if it is not there"
    )
    options = parser.parse_args()
    if not options.start.exists():
        train_start(options.archive, options.start)
    files = read_pictures(options.archive)
    starts = {None: None, options.start.name: options.start}
    keys = [
        {"pictures": size, "seed": seed, "start": start}
        for seed in range(options.seeds)
        for size in options.sizes
        for start in starts
    ]
    extend(LOG, keys, lambda pictures, seed, start: measure(files, pictures, seed, starts[start]))


if __name__ == "__main__":
    run_command(main)
