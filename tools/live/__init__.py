"""The live page of the web site: a mini-CLIP that runs in the reader's browser, without a server.

`page.html`, `live.css` and `live.js` lie beside this file. What else the page needs is made here, and goes into one
script, `data.js`: the exported towers, vectors of the pictures, and ONNX Runtime Web. A page that was opened from a disk
may load scripts and pictures, and fetch nothing.
"""

import base64
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from miniclip_utils.checkpoint import load_run
from miniclip_utils.classroom.photos import SHEET, load_photos
from miniclip_utils.data import ImageTextDataset, load_dataset
from miniclip_utils.errors import UserError
from miniclip_utils.evaluate import encode_images
from miniclip_utils.export import export_run
from miniclip_utils.shapes import CLASS_NAMES, COLORS, is_held_out

PAGE = Path(__file__).parent
# npm's package, and its hash as npm writes it: whatever the registry gives, nothing else is put on the page.
RUNTIME = "onnxruntime-web@1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
RUNTIME_FILES = {
    "runtime.mjs": "package/dist/ort.wasm.bundle.min.mjs",
    "runtime.wasm": "package/dist/ort-wasm-simd-threaded.wasm",
}
COLUMNS = 30  # of the sheet of drawings


class NoRuntime(Exception):
    """Says in a sentence why ONNX Runtime Web cannot be had here."""


def fetch_runtime() -> dict[str, bytes]:
    """What the page needs of ONNX Runtime Web, from npm.

    Raises:
        NoRuntime: there is no npm, or it does not get the package.
        UserError: it gets another package than the one that was chosen.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise NoRuntime("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", RUNTIME, "--pack-destination", folder, "--prefer-offline", "--silent", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True)
        packages = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(packages) != 1:
            raise NoRuntime(f"npm cannot get {RUNTIME}")
        content = packages[0].read_bytes()
    integrity = f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"
    if integrity != INTEGRITY:
        raise UserError(f"npm's {RUNTIME} is not the package that was chosen: its hash is {integrity}. Do not use it")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {name: archive.extractfile(path).read() for name, path in RUNTIME_FILES.items()}  # type: ignore[union-attr]


def gallery() -> ImageTextDataset:
    """The 600 drawings of lesson 00's prompt box: 400 of trained combinations, 200 of never-seen ones."""
    parts = [(load_dataset("shapes", split="test"), 400), (load_dataset("shapes", split="held_out"), 200)]
    images, labels = (torch.cat([getattr(part, name)[:count] for part, count in parts]) for name in ("images", "labels"))
    return ImageTextDataset(images, labels, CLASS_NAMES)


def as_sheet(images: Tensor) -> bytes:
    """uint8 images (N, 3, H, W), `COLUMNS` in a row, as a PNG."""
    n, _, height, width = images.shape
    rows = images.view(n // COLUMNS, COLUMNS, 3, height, width).permute(0, 3, 1, 4, 2)  # (rows, H, COLUMNS, W, 3)
    file = io.BytesIO()
    Image.fromarray(rows.reshape(-1, COLUMNS * width, 3).numpy()).save(file, "PNG", optimize=True)
    return file.getvalue()


def packed(content: bytes) -> str:
    """By gzip, for its size, and in base64, for a script."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def live_data(runtime: dict[str, bytes]) -> dict[str, Any]:
    """What `live.js` calls `DATA`."""
    data: dict[str, Any] = {
        "files": {name: packed(content) for name, content in runtime.items()},
        "models": {},
        "galleries": {},
        "colors": COLORS,
    }
    drawings = gallery()
    never_seen = torch.where(is_held_out(torch.arange(len(CLASS_NAMES))))[0].tolist()
    # The page encodes sentences with both models, but pictures, the reader's drawing, with the first alone.
    for name, pictures, sheet, columns, new, model, towers in (
        ("drawings", drawings, as_sheet(drawings.images), COLUMNS, never_seen, "shapes", ("image", "text")),
        ("photos", load_photos(), SHEET.read_bytes(), 20, [], "cifar10", ("text",)),
    ):
        run = load_run(model)
        with tempfile.TemporaryDirectory() as folder:
            export_run(run, Path(folder))  # which proves the towers
            data["models"][model] = json.loads((Path(folder) / "clip.json").read_text(encoding="utf-8"))
            for tower in towers:
                data["files"][f"{model}/{tower}.onnx"] = packed((Path(folder) / f"{tower}.onnx").read_bytes())
        features = encode_images(run.model, pictures.images).numpy().astype("<f4")
        data["files"] |= {f"{name}.features": packed(features.tobytes()), f"{name}.png": packed(sheet)}
        shown = {"labels": pictures.labels.tolist(), "names": pictures.class_names, "neverSeen": new}
        data["galleries"][name] = {**shown, "columns": columns}
    return data


def build_live(out: Path) -> None:
    """Writes the page to a folder, which is made anew.

    Raises:
        NoRuntime, UserError: see `fetch_runtime`; then there is no page.
    """
    shutil.rmtree(out, ignore_errors=True)
    data = live_data(fetch_runtime())
    out.mkdir(parents=True)
    for name, source in {"index.html": "page.html", "live.css": "live.css", "live.js": "live.js"}.items():
        shutil.copy(PAGE / source, out / name)
    (out / "data.js").write_text(f'"use strict";\nconst DATA = {json.dumps(data)};\n', encoding="utf-8")
