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

# A damaged archive, or a damaged file in it, can raise any of these: RuntimeError comes from links in a circle and from
# compression that zipfile does not know, KeyError from a link that leads nowhere.
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
        if not os.path.exists(self.path):  # unlike Path's, never an OSError, such as for a name that is too long
            raise UserError(f"there is no file or folder {str(self.path)!r}: check the path")
        try:
            source = open_folder if self.path.is_dir() else open_zip if zipfile.is_zipfile(self.path) else open_tar
            members, self._open = source(self.path)
        except UNREADABLE as error:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise UserError(
                f"cannot read {str(self.path)!r} ({reason}): it must be a folder or a whole .tar, .tar.gz, .tar.xz or .zip"
            ) from error
        visible = [name for name in members if name != "." and not is_hidden(name)]
        self.files = [name for name in visible if not members[name]]
        self.folders = [name for name in visible if members[name]]

    def open(self, name: str) -> IO[bytes]:
        """Opens one of `files` for reading; one that is damaged raises one of `UNREADABLE`."""
        return self._open(name)


# Of each relative name whether it is a folder, and a function that opens a file by its name.
Source = tuple[dict[str, bool], Callable[[str], IO[bytes]]]


def open_folder(path: Path) -> Source:
    members = {below.relative_to(path).as_posix(): is_folder for below, is_folder in walk_files(path)}
    return members, lambda name: (path / name).open("rb")


def open_zip(path: Path) -> Source:
    archive = zipfile.ZipFile(path)
    infos = {_inside(path, info.filename): info for info in archive.infolist()}
    if any(info.flag_bits & 1 for info in infos.values()):
        raise UserError(f"{str(path)!r} is encrypted: unpack it, and give the folder instead")
    return {name: info.is_dir() for name, info in infos.items()}, lambda name: archive.open(infos[name])


def open_tar(path: Path) -> Source:
    """Opens an archive, compressed or not. Devices in it are left out."""
    archive = tarfile.open(path, tarinfo=TarHeader)  # noqa: SIM115 (read as long as the function is there)
    infos = {_inside(path, info.name): info for info in archive if not info.isdev()}
    members = {name: info.isdir() for name, info in infos.items()}
    return members, lambda name: archive.extractfile(infos[name]) or io.BytesIO()


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


def _inside(archive: Path, name: str) -> str:
    """The tidied name of an archive's member, which must not point outside of the archive."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise UserError(f"{str(archive)!r} holds {name!r}, which points outside of it: do not trust this archive")
    return str(path)


def walk_files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, bool]]:
    """All that lies below a folder, sorted, each with whether it is a folder. `above` are the folders on the way to it."""
    real = folder.resolve()
    if any(outer.is_relative_to(real) for outer in above):
        raise OSError(f"{str(folder)!r} is a link to a folder that holds it")
    for path in sorted(Path(entry) for entry in os.scandir(folder)):
        is_folder = os.path.isdir(path)  # unlike Path's, never an OSError
        yield path, is_folder
        if is_folder and not is_hidden(path.name):
            yield from walk_files(path, (*above, real))


def is_picture(name: str) -> bool:
    """Whether a file's name ends as that of a picture, such as `.png`."""
    return PurePosixPath(name).suffix.lower() in Image.registered_extensions()


def is_hidden(name: str) -> bool:
    """Whether a file is hidden, or lies in a hidden folder, or is one that operating systems leave behind."""
    left_behind = {"__MACOSX", "Thumbs.db", "desktop.ini"}
    return any(part.startswith(".") or part in left_behind for part in PurePosixPath(name).parts)


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
    """One image, its centre square resized (bicubic) to uint8 (3, image_size, image_size); a bad file is a `UserError`."""
    name = file if isinstance(file, (str, Path)) else getattr(file, "name", "the image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd but harmless metadata
            with Image.open(file) as image:
                square = ImageOps.fit(to_rgb(image), (image_size, image_size), Image.Resampling.BICUBIC)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {str(name)!r}: check the path") from error
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
    bad = []
    # In stored order: a compressed archive can only be read forwards.
    for name in tqdm(source.files, desc="reading images", leave=False, disable=len(names) < 2_000):
        if name in place:
            try:
                with source.open(name) as file:
                    images[place[name]] = read_image(file, image_size)
            except (UserError, *UNREADABLE):
                bad.append(name)
                del place[name]
    kept = list(place.values())
    if bad:
        problem = f"{len(bad)} of {len(names)} files in {str(source.path)!r} cannot be read as images: {first_few(bad)}"
        if not kept:
            raise UserError(f"{problem}. None is left")
        if not skip_bad_images:
            raise UserError(f"{problem}. Mend or remove them, or skip them on purpose (--skip-bad-images)")
        warnings.warn(f"skipped: {problem}", stacklevel=2)
        images = images[kept]
    return images, kept


def first_few(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
