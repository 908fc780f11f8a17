"""Datasets of images and captions, and the loader that turns them into batches."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from .cifar10 import load_cifar10
from .errors import UserError
from .image_files import UNREADABLE, ImageFiles, listing, read_images
from .prompts import TEMPLATES
from .shapes import CLASS_NAMES, IMAGE_SIZE, SPLITS, make_shapes
from .tokenizer import split_words

# The channel means and deviations that CLIP normalises its images with (openai/CLIP, clip.py).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageTextDataset:
    """Images and what they show.

    Attributes:
        images: uint8 (N, 3, H, W).
        labels: int64 (N,), indices into `class_names`.
        class_names: the distinct things an image can show, of all splits.
        templates: what makes captions of the names; ("{}",) where each name already is a whole caption.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    templates: tuple[str, ...] = TEMPLATES

    def __len__(self) -> int:
        return len(self.images)


def load_dataset(
    source: str | Path, split: str = "train", image_size: int = 32, seed: int = 0, skip_bad_images: bool = False
) -> ImageTextDataset:
    """Loads one split of a dataset into memory.

    Args:
        source: "shapes"; "cifar10"; or the path of a folder or archive (.tar, .tar.gz, .tar.xz, .zip) with

            - class-named folders of images, below `train/`, `test/` and perhaps `validation/`, or without these; or
            - images and a `captions.csv` with the columns `file` and `caption`.

            What has no test split gives a tenth of each class for it, what has no validation split a twentieth.
        split: "train", "validation" or "test"; of the shapes also "held_out", the pairs that are never trained.
        image_size: height and width that the images of a folder or archive are brought to.
        seed: draws the shapes, and picks the images of a split that the source lacks.
        skip_bad_images: leave out files that are not whole images, with a warning that names them.

    Raises:
        UserError: what is wrong with the source, and where.
    """
    known = SPLITS if source == "shapes" else ("train", "validation", "test")
    if split not in known:
        raise UserError(f"{str(source)!r} has no split {split!r}: choose one of {', '.join(known)}")
    if image_size < 1:
        raise UserError(f"there are no images of {image_size} pixels: choose an image_size of 1 or more")
    if abs(seed) >= 2**60:
        raise UserError(f"the seed {seed} is too large: choose one below 2**60")
    if source == "shapes":
        if image_size != IMAGE_SIZE:
            raise UserError(f"the shapes are drawn at {IMAGE_SIZE} pixels: this model wants {image_size}")
        return ImageTextDataset(*make_shapes(split, seed), CLASS_NAMES)
    if source == "cifar10":
        if image_size != 32:
            raise UserError(f"the images of CIFAR-10 are 32 pixels wide: this model wants {image_size}")
        return ImageTextDataset(*load_cifar10(split, seed))
    files = ImageFiles(source)
    captions = sorted(name for name in files.files if PurePosixPath(name).name == "captions.csv")
    if len(captions) > 1:
        raise UserError(f"{str(source)!r} holds {listing(captions)}: name the folder of one of them, or join them into one")
    splits, class_names = _captioned_splits(files, captions[0], seed) if captions else _class_folder_splits(files, seed)
    if not splits[split]:
        enough = "three" if captions else "three of each class"
        raise UserError(f"{str(source)!r} has too few images for a {split} split: give it at least {enough}")
    names = list(dict.fromkeys(name for name, _ in splits[split]))  # an image with several captions is read once
    images, kept = read_images(files, names, image_size, skip_bad_images)
    row = {names[index]: row for row, index in enumerate(kept)}
    rows, labels = torch.tensor([(row[name], label) for name, label in splits[split] if name in row]).unbind(1)
    return ImageTextDataset(images[rows], labels, class_names, ("{}",) if captions else TEMPLATES)


Pairs = list[tuple[str, int]]  # file name, label


def _class_folder_splits(files: ImageFiles, seed: int) -> tuple[dict[str, Pairs], tuple[str, ...]]:
    """Sorts class-named folders into splits: {"train": [(file, label), …], …} and the class names."""
    where = str(files.path)
    paths = [PurePosixPath(name).parts for name in files.files]
    folders = [PurePosixPath(name).parts for name in files.folders]
    aliases = {"train": "train", "test": "test", "validation": "validation", "val": "validation", "valid": "validation"}
    # An archive often holds everything in one folder named after itself.
    skip = 1 if len({path[0] for path in paths}) == 1 and any(len(path) > 2 for path in paths) else 0
    if skip and paths[0][0].lower() in aliases:
        skip = 0
    inner = [path for path in paths if len(path) > skip + 1]
    in_splits = [path for path in inner if path[skip].lower() in aliases]
    # A `train` with images of its own, beside folders of other names, is a class: that of trains.
    has_splits = any(len(path) > skip + 2 for path in in_splits) or 0 < len(in_splits) == len(inner)
    class_at = skip + 1 if has_splits else skip

    found: dict[tuple[str, str], list[str]] = {
        (aliases.get(folder[skip].lower(), "") if has_splits else "train", folder[class_at]): []
        for folder in folders
        if len(folder) == class_at + 1
    }
    for name, path in zip(files.files, paths, strict=True):
        if len(path) > class_at + 1:
            split = aliases.get(path[skip].lower(), "") if has_splits else "train"
            found.setdefault((split, path[class_at]), []).append(name)
    found = {key: sorted(names) for key, names in found.items() if key[0]}
    if not found:
        raise UserError(f"{where!r} holds no class-named folders of images and no captions.csv: it needs one of them")
    empty = sorted(f"{split}/{name}" if has_splits else name for (split, name), names in found.items() if not names)
    if empty:
        raise UserError(f"{where!r} has class folders without images: {listing(empty)}. Fill or remove them")

    classes = sorted({name for split, name in found if split == "train"})
    untrained = sorted({name for _, name in found} - set(classes))
    if untrained:
        raise UserError(f"{where!r} has classes without training images: {listing(untrained)}. Add them to train/")
    class_names = tuple(name.replace("_", " ") for name in classes)
    read = [split_words(name) for name in class_names]
    twins = [name for name, words in zip(classes, read, strict=True) if read.count(words) > 1]
    if twins:
        raise UserError(f"{where!r} has class folders whose names read the same: {listing(twins)}. Rename or join them")
    present = {split for split, _ in found}
    splits: dict[str, Pairs] = {"train": [], "validation": [], "test": []}
    generator = torch.Generator().manual_seed(seed)
    for label, name in enumerate(classes):
        train = found["train", name]
        order = torch.randperm(len(train), generator=generator).tolist()
        for split, share in (("test", 0.1), ("validation", 0.05)):
            if split in present:
                splits[split] += [(file, label) for file in found.get((split, name), [])]
            elif len(train) >= 3:
                taken = [order.pop() for _ in range(max(1, round(share * len(train))))]
                splits[split] += [(train[index], label) for index in sorted(taken)]
        splits["train"] += [(train[index], label) for index in sorted(order)]
    return splits, class_names


def _captioned_splits(files: ImageFiles, csv_name: str, seed: int) -> tuple[dict[str, Pairs], tuple[str, ...]]:
    """Splits the images of a captions.csv; the captions of one image stay together."""
    where = f"{csv_name!r} in {str(files.path)!r}"
    try:
        with files.open(csv_name) as file:
            # Strict, since a quote that nobody closes would swallow all lines after it in silence.
            reader = csv.DictReader(io.StringIO(file.read().decode("utf-8-sig"), newline=""), strict=True)
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error, *UNREADABLE) as error:
        raise UserError(f"{where} cannot be read ({error}): save it as UTF-8 text with commas") from error
    if not rows or not {"file", "caption"} <= set(rows[0][1]):
        raise UserError(f"{where} must have a first line 'file,caption' and then a line for each pair")
    known = set(files.files)
    folder = PurePosixPath(csv_name).parent
    pairs = []
    spelling: dict[tuple[str, ...], str] = {}  # the first of captions that read the same, such as "A cat" and "a cat"
    for line, row in rows:
        name, caption = str(folder / (row["file"] or "").strip()), (row["caption"] or "").strip()
        if not caption:
            raise UserError(f"{where}, line {line}: the caption of {row['file']!r} is empty")
        if name not in known:
            raise UserError(f"{where}, line {line}: there is no file {row['file']!r} beside it")
        pairs.append((name, spelling.setdefault(tuple(split_words(caption)), caption)))
    class_names = tuple(sorted({caption for _, caption in pairs}))
    label = {caption: index for index, caption in enumerate(class_names)}
    names = sorted({name for name, _ in pairs})
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    tests, validations = (max(1, round(share * len(names))) if len(names) >= 3 else 0 for share in (0.1, 0.05))
    chosen = {"test": order[:tests], "validation": order[tests : tests + validations], "train": order[tests + validations :]}
    split_of = {names[index]: split for split, indices in chosen.items() for index in indices}
    splits: dict[str, Pairs] = {split: [] for split in chosen}
    for name, caption in pairs:
        splits[split_of[name]].append((name, label[caption]))
    return splits, class_names


def normalize(images: Tensor) -> Tensor:
    """uint8 images (N, 3, H, W) → what the model takes: float, each channel with about zero mean and unit deviation."""
    mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(3, 1, 1)
    return (images / 255 - mean) / std


def augment(images: Tensor, flip: bool, shift: int) -> Tensor:
    """Moves each image by up to `shift` pixels either way, and mirrors half of them if `flip`.

    Pixels that move in from outside are reflected ones. Flips and moves are one look-up of rows and columns,
    for the whole batch, on the device that holds it.

    Args:
        images: uint8 (N, 3, H, W).
        shift: in pixels, smaller than H and W.

    Returns:
        uint8 (N, 3, H, W), in channels-last memory order.
    """
    n, _, height, width = images.shape
    device = images.device
    offsets = torch.randint(-shift, shift + 1, (2, n, 1), device=device)
    rows = _reflect(torch.arange(height, device=device) + offsets[0], height)  # (N, H)
    columns = _reflect(torch.arange(width, device=device) + offsets[1], width)  # (N, W)
    if flip:
        mirrored = torch.rand(n, 1, device=device) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    image = torch.arange(n, device=device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]  # (N, H, W, 3)
    return moved.permute(0, 3, 1, 2)


def _reflect(index: Tensor, length: int) -> Tensor:
    """Brings indices that run past either end back inside, as in a mirror: −1 → 1, length → length − 2."""
    return (length - 1) - ((length - 1) - index.abs()).abs()


class BatchLoader:
    """Shuffled batches of a dataset that stays on the device as uint8 bytes.

    A quarter of the memory of floats, no copies from the CPU, no worker processes. The order and the augmentation
    come from torch's global random numbers: `torch.manual_seed` before an epoch fixes both.

    Args:
        dataset: what to draw from.
        batch_size: pairs in a batch; the last, smaller batch of an epoch is dropped, since its loss would not compare.
        device: where batches are made.
        flip, shift: see `augment`.
    """

    def __init__(self, dataset: ImageTextDataset, batch_size: int, device: torch.device, flip: bool, shift: int):
        # Channels-last memory keeps the three bytes of a pixel together, which `augment` then reads in one go.
        self.images = dataset.images.to(device, memory_format=torch.channels_last)
        self.labels = dataset.labels.to(device)
        self.batch_size = min(batch_size, len(dataset))
        self.flip, self.shift = flip, shift

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields normalised images (B, 3, H, W) and labels (B,)."""
        order = torch.randperm(len(self.images), device=self.images.device)
        for batch in order.split(self.batch_size)[: len(self)]:
            yield normalize(augment(self.images[batch], self.flip, self.shift)), self.labels[batch]
