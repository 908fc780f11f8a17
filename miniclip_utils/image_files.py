"""Image files in a folder or an archive, of any mode and size, as uint8 tensors.

Archives are read in place and never unpacked, so nothing in them can be written anywhere.
"""

import io
import os
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from .errors import UserError

# What a damaged archive, or a file in it, can raise: RuntimeError comes from links in a circle and from compression
# that zipfile does not know, KeyError from a link that leads nowhere.
UNREADABLE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError, RuntimeError, KeyError)


class ImageFiles:
    """The files below a folder, or in a `.tar`, `.tar.gz`, `.tar.xz` or `.zip` archive, seen alike.

    Links in a folder are followed. Those in an archive lead to files of that archive, and nowhere else.

    Attributes:
        path: the folder or archive.
        files: relative names with `/`, hidden files left out, in the order in which they are stored.
        folders: relative names of all folders.

    Raises:
        UserError: nothing is there, the archive cannot be read, or a name in it points outside of it.
    """

    def __init__(self, path: str | Path):
        if not str(path):  # else it would be the working folder
            raise UserError("the name of the folder or archive of images is empty: give it one")
        self.path = Path(os.path.expanduser(path))
        self.open: Callable[[str], IO[bytes]]
        try:
            if self.path.is_dir():
                members = dict(below(self.path))
                self.open = lambda name: (self.path / name).open("rb")
            elif zipfile.is_zipfile(self.path):
                zip_archive = zipfile.ZipFile(self.path)
                zip_infos = {self._inside(info.filename): info for info in zip_archive.infolist()}
                if any(info.flag_bits & 1 for info in zip_infos.values()):
                    raise UserError(f"{str(self.path)!r} is encrypted: unpack it, and give the folder instead")
                members = {name: info.is_dir() for name, info in zip_infos.items()}
                self.open = lambda name: zip_archive.open(zip_infos[name])
            elif self.path.is_file():
                tar_archive = tarfile.open(self.path, tarinfo=TarHeader)  # noqa: SIM115 (read until the object goes)
                tar_infos = {self._inside(info.name): info for info in tar_archive if not info.isdev()}
                members = {name: info.isdir() for name, info in tar_infos.items()}
                self.open = lambda name: tar_archive.extractfile(tar_infos[name]) or io.BytesIO()
            else:
                raise UserError(f"there is no file or folder {str(self.path)!r}: check the path")
        except UNREADABLE as error:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise UserError(
                f"cannot read {str(self.path)!r} ({reason}): it must be a folder or a whole .tar, .tar.gz, .tar.xz or .zip"
            ) from error
        visible = [(name, is_folder) for name, is_folder in members.items() if name != "." and not is_hidden(name)]
        self.files = [name for name, is_folder in visible if not is_folder]
        self.folders = [name for name, is_folder in visible if is_folder]

    def _inside(self, name: str) -> str:
        """The name of an archive's member, tidied."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise UserError(f"{str(self.path)!r} holds {name!r}, which points outside of it: do not trust this archive")
        return str(path)


class TarHeader(tarfile.TarInfo):
    """`tarfile` takes a damaged or missing header for the end of the archive, and would lose what comes after it."""

    @classmethod
    def frombuf(cls, *header: Any) -> "TarHeader":
        try:
            return super().frombuf(*header)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise
            raise tarfile.ReadError(f"{error}, the archive is damaged or not whole") from error


def below(folder: Path) -> Iterator[tuple[str, bool]]:
    """The relative names below a folder, sorted, each with whether it is a folder."""

    def fail(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        above = (folder / path for path in Path(place).relative_to(folder).parents)
        if Path(place).is_symlink() and any(path.resolve().is_relative_to(Path(place).resolve()) for path in above):
            raise OSError(f"{place!r} is a link to a folder that holds it")
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in (*folders, *sorted(files)):
            yield Path(place, name).relative_to(folder).as_posix(), name in folders


def is_hidden(name: str) -> bool:
    """Whether a file is one of those that operating systems leave in folders."""
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1:] in [
        ("Thumbs.db",),
        ("desktop.ini",),
    ]


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB, turned upright, transparency on white, 16-bit grey scaled and not clipped."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_image(file: str | Path | IO[bytes], image_size: int) -> Tensor:
    """One image, its centre square resized (bicubic) to uint8 (3, image_size, image_size).

    Raises:
        UserError: the file is missing, or is not a whole image.
    """
    name = file if isinstance(file, (str, Path)) else getattr(file, "name", "the image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd but harmless metadata
            with Image.open(file) as image:
                square = ImageOps.fit(to_rgb(image), (image_size, image_size), Image.Resampling.BICUBIC)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {str(name)!r}: check the path") from error
    except IsADirectoryError as error:
        raise UserError(f"{str(name)!r} is not an image but a folder: name the images in it") from error
    except Exception as error:  # a damaged file can raise almost anything in Pillow's decoders
        raise UserError(f"{str(name)!r} is not an image that can be read ({error})") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def read_images(
    source: ImageFiles, names: Sequence[str], image_size: int, skip_bad_images: bool = False
) -> tuple[Tensor, list[int]]:
    """Reads the named files of a source.

    Args:
        skip_bad_images: leave out files that are not whole images, with one warning that counts and names them.

    Returns:
        images, uint8 (M, 3, image_size, image_size), and which of `names` they are, M ≤ len(names) indices.

    Raises:
        UserError: a file is not a whole image, and `skip_bad_images` is False; or none can be read.
    """
    images = torch.empty(len(names), 3, image_size, image_size, dtype=torch.uint8)
    place = {name: index for index, name in enumerate(names)}
    bad: list[str] = []
    # In stored order: a compressed archive can only be read forwards.
    for name in tqdm(source.files, desc="reading images", leave=False, disable=len(names) < 2_000):
        if name in place:
            try:
                with source.open(name) as file:
                    images[place[name]] = read_image(file, image_size)
            except (UserError, *UNREADABLE):
                bad.append(name)
    kept = [index for index, name in enumerate(names) if name not in bad]
    if bad:
        problem = f"{len(bad)} of {len(names)} files in {str(source.path)!r} cannot be read as images: {listing(bad)}"
        if not kept:
            raise UserError(f"{problem}. None is left")
        if not skip_bad_images:
            raise UserError(f"{problem}. Mend or remove them, or skip them on purpose (--skip-bad-images)")
        warnings.warn(f"skipped: {problem}", stacklevel=2)
        images = images[kept]
    return images, kept


def listing(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
