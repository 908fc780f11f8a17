"""Which image files show what, by class-named folders or a `captions.csv`, and which of them make up which split."""

import csv
import io
from collections import Counter
from pathlib import PurePosixPath

import torch

from .errors import UserError
from .image_files import UNREADABLE, ImageFiles, first_few
from .tokenizer import split_words

Splits = dict[str, list[tuple[str, int]]]  # {"train": [(file, index of its class name), …], …}
ClassFolders = dict[tuple[str, str], list[str]]  # {(split, folder): its files, …}

CAPTIONS = "captions.csv"
SPLIT_FOLDERS = {"train": "train", "test": "test", "validation": "validation", "val": "validation", "valid": "validation"}
SHARES = {"test": 0.1, "validation": 0.05}  # of all images, where the source has no such split itself


def find_captions(files: ImageFiles) -> str | None:
    """The name of the `captions.csv`, if there is one; several are a `UserError`."""
    found = sorted(name for name in files.files if PurePosixPath(name).name == CAPTIONS)
    if len(found) > 1:
        raise UserError(f"{str(files.path)!r} holds {first_few(found)}: name the folder of one, or join them into one")
    return found[0] if found else None


def class_folder_splits(files: ImageFiles, seed: int) -> tuple[Splits, tuple[str, ...]]:
    """Sorts the images of class-named folders into splits. Returns these and the class names.

    A split without folders takes a random share of each class's training images.

    Raises:
        UserError: no folder is found; or one is empty, has no training images, or reads the same as another.
    """
    found, has_splits = _find_class_folders(files)
    _check_class_folders(found, has_splits, repr(str(files.path)))
    present = {split for split, _ in found}
    classes = sorted(name for split, name in found if split == "train")
    splits: Splits = {"train": [], "validation": [], "test": []}
    generator = torch.Generator().manual_seed(seed)
    for label, name in enumerate(classes):
        train = found["train", name]
        order = torch.randperm(len(train), generator=generator).tolist()
        for split in SHARES:
            if split in present:
                splits[split] += [(file, label) for file in found.get((split, name), [])]
            else:
                taken = [order.pop() for _ in range(_set_aside(split, len(train)))]
                splits[split] += [(train[index], label) for index in sorted(taken)]
        splits["train"] += [(train[index], label) for index in sorted(order)]
    return splits, tuple(name.replace("_", " ") for name in classes)


def _find_class_folders(files: ImageFiles) -> tuple[ClassFolders, bool]:
    """The images of each class folder, and whether folders of splits are around them. Without these all are "train"."""
    paths = {name: PurePosixPath(name).parts for name in sorted(files.files)}
    # An archive often holds everything in one folder named after itself.
    roots = {path[0] for path in paths.values()}
    is_wrapped = len(roots) == 1 and any(len(path) > 2 for path in paths.values())
    top = 1 if is_wrapped and roots.pop().lower() not in SPLIT_FOLDERS else 0
    inner = [path for path in paths.values() if len(path) > top + 1]
    in_splits = [path for path in inner if path[top].lower() in SPLIT_FOLDERS]
    # A `train` with images of its own, beside folders of other names, is a class: that of trains.
    has_splits = any(len(path) > top + 2 for path in in_splits) or 0 < len(in_splits) == len(inner)
    class_at = top + 1 if has_splits else top

    def key(path: tuple[str, ...]) -> tuple[str, str]:
        return (SPLIT_FOLDERS.get(path[top].lower(), "") if has_splits else "train", path[class_at])

    folders = [PurePosixPath(name).parts for name in files.folders]
    found: ClassFolders = {key(folder): [] for folder in folders if len(folder) == class_at + 1}
    for name, path in paths.items():
        if len(path) > class_at + 1:
            found.setdefault(key(path), []).append(name)
    return {(split, name): images for (split, name), images in found.items() if split}, has_splits


def _check_class_folders(found: ClassFolders, has_splits: bool, where: str) -> None:
    """Refuses class folders that no model can be trained on as they are."""
    if not found:
        raise UserError(f"{where} holds no class-named folders of images and no captions.csv: it needs one of them")
    if empty := sorted(f"{split}/{name}" if has_splits else name for (split, name), images in found.items() if not images):
        raise UserError(f"{where} has class folders without images: {first_few(empty)}. Fill or remove them")
    trained = {name for split, name in found if split == "train"}
    if untrained := sorted({name for _, name in found} - trained):
        raise UserError(f"{where} has classes without training images: {first_few(untrained)}. Add them to train/")
    words = {name: tuple(split_words(name.replace("_", " "))) for name in sorted(trained)}
    count = Counter(words.values())
    if twins := [name for name in words if count[words[name]] > 1]:
        raise UserError(f"{where} has class folders whose names read the same: {first_few(twins)}. Rename or join them")


def _set_aside(split: str, count: int) -> int:
    """How many of `count` images make up a split that the source lacks: at least one, if training keeps one."""
    return max(1, round(SHARES[split] * count)) if count >= 3 else 0


def captioned_splits(files: ImageFiles, csv_name: str, seed: int) -> tuple[Splits, tuple[str, ...]]:
    """Sorts the images of a `captions.csv` into random splits, each with all its captions. Returns these and the captions.

    Raises:
        UserError: the file cannot be read, lacks a column, has an empty caption, or names an image that is not there.
    """
    pairs = _read_captions(files, csv_name)
    class_names = tuple(sorted({caption for _, caption in pairs}))
    label = {caption: index for index, caption in enumerate(class_names)}
    names = sorted({name for name, _ in pairs})
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    aside = [split for split in SHARES for _ in range(_set_aside(split, len(names)))]
    split_of = dict.fromkeys(names, "train") | {names[k]: split for k, split in zip(order, aside, strict=False)}
    splits: Splits = {"train": [], "validation": [], "test": []}
    for name, caption in pairs:
        splits[split_of[name]].append((name, label[caption]))
    return splits, class_names


def _read_captions(files: ImageFiles, csv_name: str) -> list[tuple[str, str]]:
    """(image file, caption) of each line. Captions that read the same, as "A cat" and "a cat", are spelt as the first."""
    where = f"{csv_name!r} in {str(files.path)!r}"
    try:
        with files.open(csv_name) as file:
            # Strict, since a quote that is never closed would silently swallow all lines after it.
            reader = csv.DictReader(io.StringIO(file.read().decode("utf-8-sig"), newline=""), strict=True)
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error, *UNREADABLE) as error:
        raise UserError(f"{where} cannot be read ({error}): save it as UTF-8 text with commas") from error
    if not rows or not {"file", "caption"} <= set(rows[0][1]):
        raise UserError(f"{where} must have a first line 'file,caption' and then a line for each pair")
    known = set(files.files)
    folder = PurePosixPath(csv_name).parent
    pairs = []
    spelling: dict[tuple[str, ...], str] = {}
    for line, row in rows:
        name, caption = str(folder / (row["file"] or "").strip()), (row["caption"] or "").strip()
        if not caption:
            raise UserError(f"{where}, line {line}: the caption of {row['file']!r} is empty")
        if name not in known:
            raise UserError(f"{where}, line {line}: there is no file {row['file']!r} beside it")
        pairs.append((name, spelling.setdefault(tuple(split_words(caption)), caption)))
    return pairs
