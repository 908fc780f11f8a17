"""Datasets of images and captions, and the loader that turns them into batches."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .cifar10 import load_cifar10
from .errors import UserError
from .folders import captioned_splits, class_folder_splits, find_captions
from .image_files import ImageFiles, first_few, is_picture, read_images
from .prompts import TEMPLATES
from .shapes import CLASS_NAMES, SPLITS, make_shapes

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
        templates: sentences with `{}` for a class name; ("{}",) where each name already is a whole caption.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    templates: tuple[str, ...] = TEMPLATES

    def __len__(self) -> int:
        return len(self.images)


def load_splits(
    source: str | Path,
    image_size: int = 32,
    seed: int = 0,
    skip_bad_images: bool = False,
    splits: Sequence[str] | None = None,
) -> dict[str, ImageTextDataset]:
    """Loads the splits of a dataset into memory. Each file is read once.

    Args:
        source: "shapes"; "cifar10"; or the path of a folder or archive (.tar, .tar.gz, .tar.xz, .zip) with class-named
            folders of images, below `train/`, `test/` and perhaps `validation/`, or without these; or with images and a
            `captions.csv`, which has the columns `file` and `caption`. Without a test split, a tenth of each class
            becomes one; without a validation split, a twentieth.
        image_size: height and width in pixels that the images of a folder or archive are brought to.
        seed: draws the shapes, and picks the images of a split that the source lacks.
        skip_bad_images: leave out files that are not whole images, with a warning that names them.
        splits: by default "train", "validation" and "test", and of the shapes also "held_out", the pairs never trained.

    Raises:
        UserError: the source cannot be read, is laid out otherwise, or has no such split, or no image for it.
    """
    known = tuple(SPLITS) if source == "shapes" else ("train", "validation", "test")
    splits = known if splits is None else splits
    for split in splits:
        if split not in known:
            raise UserError(f"{str(source)!r} has no split {split!r}: choose one of {', '.join(known)}")
    if image_size < 1:
        raise UserError(f"there are no images of {image_size} pixels: choose an image_size of 1 or more")
    if source in ("shapes", "cifar10") and image_size != 32:
        raise UserError(f"the images of {source!r} are 32 pixels wide: this model wants {image_size}")
    if source == "shapes":
        return {split: ImageTextDataset(*make_shapes(split, seed), CLASS_NAMES) for split in splits}
    if source == "cifar10":
        cifar10, class_names = load_cifar10(seed)
        return {split: ImageTextDataset(*cifar10[split], class_names) for split in splits}
    return _load_files(source, image_size, seed, skip_bad_images, splits)


def load_dataset(
    source: str | Path, split: str = "train", image_size: int = 32, seed: int = 0, skip_bad_images: bool = False
) -> ImageTextDataset:
    """Loads one split of a dataset, and reads the images of no other. Arguments and errors: see `load_splits`."""
    return load_splits(source, image_size, seed, skip_bad_images, [split])[split]


def _load_files(
    source: str | Path, image_size: int, seed: int, skip_bad_images: bool, splits: Sequence[str]
) -> dict[str, ImageTextDataset]:
    """Loads the named splits of a folder or archive, all in one pass over its files."""
    files = ImageFiles(source)
    captions = find_captions(files)
    pairs, class_names = captioned_splits(files, captions, seed) if captions else class_folder_splits(files, seed)
    for split in splits:
        if not pairs[split]:
            enough = "three" if captions else "three of each class"
            raise UserError(f"{str(source)!r} has too few images for a {split} split: give it at least {enough}")
    pictures = sorted(filter(is_picture, files.files))
    if left_out := sorted(set(pictures) - {name for split in pairs.values() for name, _ in split}):
        why = f"not named in {captions!r}" if captions else "in no folder of a class"
        some = f"{len(left_out)} of {len(pictures)} pictures in {str(source)!r}"
        warnings.warn(f"left out: {some}, {why}: {first_few(left_out)}", stacklevel=2)
    names = list(dict.fromkeys(name for split in splits for name, _ in pairs[split]))  # an image may have several captions
    images, kept = read_images(files, names, image_size, skip_bad_images)
    row = {names[index]: row for row, index in enumerate(kept)}
    datasets = {}
    for split in splits:
        readable = [(row[name], label) for name, label in pairs[split] if name in row]
        if not readable:
            raise UserError(f"{str(source)!r} has no image that can be read for a {split} split: mend or replace some")
        rows, labels = torch.tensor(readable).unbind(1)
        datasets[split] = ImageTextDataset(images[rows], labels, class_names, ("{}",) if captions else TEMPLATES)
    return datasets


def normalize(images: Tensor) -> Tensor:
    """uint8 images (N, 3, H, W) → the model's input: float, each channel less CLIP's mean, divided by its deviation."""
    mean, std = torch.tensor((MEAN, STD), device=images.device).view(2, 3, 1, 1)
    return (images / 255 - mean) / std


def augment(images: Tensor, flip: bool, shift: int) -> Tensor:
    """Moves each image by up to `shift` pixels either way, and mirrors half of them if `flip`.

    Pixels from outside are reflected at the border. Flips and moves are one look-up of rows and columns for the
    whole batch, on its own device.

    Args:
        images: uint8 (N, 3, H, W); so is the result, in channels-last memory order.
        shift: in pixels, smaller than H and W.
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

    Bytes need a quarter of the memory of floats. Batches need no copies from the CPU and no worker processes. The order
    and the augmentation come from torch's global random numbers: `torch.manual_seed` before an epoch fixes both.

    Args:
        batch_size: pairs in a batch; the last, smaller batch of an epoch is dropped, since its loss would not compare.
        flip, shift: see `augment`.
        alternate: mirror each picture in every second epoch, half of them in the first, and none at random: no picture is
            then seen in the same way in two epochs running (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", §3.6).
    """

    def __init__(
        self,
        dataset: ImageTextDataset,
        batch_size: int,
        device: torch.device,
        flip: bool,
        shift: int,
        alternate: bool = False,
    ):
        # Channels-last memory keeps the three bytes of a pixel together, which `augment` then reads in one go.
        self.images = dataset.images.to(device, memory_format=torch.channels_last)
        self.labels = dataset.labels.to(device)
        self.batch_size = min(batch_size, len(dataset))
        self.flip, self.shift, self.alternate = flip and not alternate, shift, alternate
        if alternate:
            mirrored = torch.rand(len(dataset), 1, 1, 1) < 0.5
            self.images = torch.where(mirrored.to(device), self.images.flip(3), self.images)

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields normalised images (B, 3, H, W) and labels (B,)."""
        order = torch.randperm(len(self.images), device=self.images.device)
        for batch in order.split(self.batch_size)[: len(self)]:
            yield normalize(augment(self.images[batch], self.flip, self.shift)), self.labels[batch]
        self.next_epoch()

    def next_epoch(self) -> None:
        """Mirrors all pictures, if they alternate: at the end of each epoch, and for each that a resumed run leaves out."""
        if self.alternate:
            self.images = self.images.flip(3)
