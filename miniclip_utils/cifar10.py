"""CIFAR-10 (Krizhevsky 2009): downloaded once, checked by its hash, read without pickle."""

import hashlib
import http.client
import os
import socket
import tarfile
import urllib.error
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from .errors import UserError

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"  # the version without pickles
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


def data_folder() -> Path:
    """Where downloads are kept for all lessons: $MINICLIP_DATA, or else ~/.cache/miniclip."""
    return Path(os.path.expanduser(os.environ.get("MINICLIP_DATA") or "~/.cache/miniclip"))


def load_cifar10(seed: int = 0) -> tuple[dict[str, tuple[Tensor, Tensor]], tuple[str, ...]]:
    """All splits; "validation" is a twentieth of each class of the 50,000 training images, picked by the seed.

    Returns:
        {"train": (images, labels), "validation": …, "test": …}, with images uint8 (N, 3, 32, 32) and labels int64 (N,);
        and the ten class names.

    Raises:
        UserError: it cannot be downloaded or kept, or the file that is there was changed.
    """
    with tarfile.open(download_cifar10()) as archive:
        contents = {PurePosixPath(info.name).name: file.read() for info in archive if (file := archive.extractfile(info))}
    class_names = tuple(contents["batches.meta.txt"].decode().split())
    images, labels = _decode(b"".join(contents[f"data_batch_{number}.bin"] for number in range(1, 6)))
    generator = torch.Generator().manual_seed(seed)
    is_validation = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(len(class_names)):
        (of_class,) = torch.where(labels == label)
        order = torch.randperm(len(of_class), generator=generator)
        is_validation[of_class[order[: len(order) // 20]]] = True
    train, validation = ((images[chosen], labels[chosen]) for chosen in (~is_validation, is_validation))
    return {"train": train, "validation": validation, "test": _decode(contents["test_batch.bin"])}, class_names


def _decode(content: bytes) -> tuple[Tensor, Tensor]:
    """Records of one byte for the label, and then the red, the green and the blue bytes of the pixels."""
    records = torch.from_numpy(np.frombuffer(content, dtype=np.uint8).reshape(-1, 1 + 3 * 32 * 32).copy())
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long()


def download_cifar10() -> Path:
    """The path of the archive, downloaded if it is not there yet, once however many processes ask for it."""
    archive = data_folder() / "cifar-10-binary.tar.gz"
    timeout = socket.getdefaulttimeout()
    try:
        if not archive.exists():
            archive.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{archive}.lock"):
                if not archive.exists():
                    socket.setdefaulttimeout(60)  # seconds; without a limit a silent firewall would block for ever
                    torch.hub.download_url_to_file(CIFAR10_URL, str(archive), hash_prefix=CIFAR10_SHA256)
        if hashlib.sha256(archive.read_bytes()).hexdigest() != CIFAR10_SHA256:
            raise UserError(f"{str(archive)!r} is damaged: delete it, and it will be downloaded again")
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, RuntimeError) as error:
        raise UserError(
            f"CIFAR-10 could not be downloaded ({error}): use the dataset 'shapes', which needs no download, "
            f"or put {CIFAR10_URL} into {str(archive.parent)!r} yourself"
        ) from error
    except OSError as error:
        raise UserError(f"cannot use the data folder ({error}): set MINICLIP_DATA to one that you can write") from error
    finally:
        socket.setdefaulttimeout(timeout)
    return archive
