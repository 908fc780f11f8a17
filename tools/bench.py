"""Measures what the course promises: `make bench`. Prints a table and writes build/bench.json.

Ratios are medians over repeats in which both sides take turns in one process; memory is measured in processes of its
own. With MINICLIP_TEST_ARCHIVE=path/of/cifar10_jpeg.tar.xz it also trains on those photos, which takes half an hour.
`make gpu` measures a GPU.
"""

import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip import ClipLoss
from PIL import Image
from torch import Tensor, nn

from miniclip_utils import clip_loss, load_dataset
from miniclip_utils.data import ImageTextDataset
from miniclip_utils.evaluate import zero_shot_accuracy
from miniclip_utils.fit import new_config, prepare
from miniclip_utils.image_files import ImageFiles
from miniclip_utils.loop import RECIPES, train_epoch
from miniclip_utils.losses import chunked_clip_loss
from miniclip_utils.model import PRESETS, MiniCLIP
from miniclip_utils.prompts import fill
from miniclip_utils.shapes import make_shapes
from miniclip_utils.tokenizer import WordTokenizer
from miniclip_utils.train import train

Row = dict[str, str | float]


def row(name: str, value: float, unit: str, goal: str = "") -> Row:
    print(f"{name:78} {value:10.3f} {unit:8} {goal}", flush=True)
    return {"name": name, "value": value, "unit": unit, "goal": goal}


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ratio(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int = 7) -> float:
    """Time of ours over time of theirs: the median over repeats in which they take turns, after one without a clock."""
    return statistics.median([seconds(ours) / seconds(theirs) for _ in range(repeats + 1)][1:])


def import_seconds() -> list[Row]:
    """The package's import on top of torch's and torchvision's, the median of five processes."""
    code = "import time, torch, torchvision; t = time.perf_counter(); import miniclip_utils; print(time.perf_counter() - t)"
    runs = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    return [row("import miniclip_utils after torch and torchvision", statistics.median(runs), "s", "<= 0.5")]


def shapes_seconds() -> list[Row]:
    return [row("draw 20,000 shapes", seconds(lambda: make_shapes("train")), "s", "<= 5")]


def unit_features(n: int, device: str | torch.device = "cpu") -> list[Tensor]:
    """L2-normalised (n, 512) twice and a scale, all of which want gradients."""
    torch.manual_seed(0)
    image, text = F.normalize(torch.randn(2, n, 512, device=device), dim=-1)
    return [tensor.requires_grad_() for tensor in (image, text, torch.tensor(1 / 0.07, device=device))]


def forward_backward(loss: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    torch.autograd.grad(loss(*inputs), inputs)


def loss_times() -> list[Row]:
    inputs = unit_features(4_096)
    ours = ratio(partial(forward_backward, clip_loss, inputs), partial(forward_backward, ClipLoss(), inputs))
    inputs = unit_features(8_192)
    chunked = ratio(
        partial(forward_backward, chunked_clip_loss, inputs), partial(forward_backward, clip_loss, inputs), repeats=3
    )
    return [
        row("clip_loss: time of open_clip's ClipLoss, N = 4,096, D = 512", ours, "×", "<= 1.0"),
        row("chunked_clip_loss: time of clip_loss, N = 8,192, D = 512", chunked, "×", "<= 1.5"),
    ]


def peak_memory_of(name: str) -> None:
    """Prints the bytes that one loss of N = 8,192 adds to this process's memory at its peak, its features aside."""
    loss = {"clip_loss": clip_loss, "chunked_clip_loss": chunked_clip_loss}[name]
    forward_backward(loss, unit_features(16))  # the first call loads what every call needs
    inputs = unit_features(8_192)
    before = peak_bytes()
    forward_backward(loss, inputs)
    print(peak_bytes() - before)


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    status = Path("/proc/self/status")
    if not status.exists():  # on macOS, where ru_maxrss is in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # On Linux ru_maxrss also remembers the parent's.
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def loss_memory() -> list[Row]:
    plain, chunked = (
        int(subprocess.check_output([sys.executable, "-m", "tools.bench", "--memory", name]))
        for name in ("clip_loss", "chunked_clip_loss")
    )
    return [
        row("clip_loss: peak memory beyond the features, N = 8,192, D = 512", plain / 1e6, "MB"),
        row("chunked_clip_loss: peak memory of clip_loss, N = 8,192, D = 512", chunked / plain, "×", "<= 0.15"),
    ]


def text_side() -> list[Row]:
    """The text tower's forward and backward pass for 512 captions of ten kinds."""
    names = tuple(load_dataset("shapes", "validation").class_names[:10])
    captions = fill("a photo of a {}.", names)
    tokenizer = WordTokenizer.from_captions(captions)
    model = MiniCLIP(PRESETS["medium"], len(tokenizer), tokenizer.context_length)
    tokens = tokenizer(captions)
    labels = torch.randint(10, (512,))

    def distinct() -> None:
        kinds, which = torch.unique(labels, return_inverse=True)
        model.encode_text(tokens[kinds])[which].sum().backward()

    def every() -> None:
        model.encode_text(tokens[labels]).sum().backward()

    return [row("text side: distinct captions once, 512 of ten, speed-up", 1 / ratio(distinct, every), "×", ">= 10")]


def shapes_training(out: Path) -> list[Row]:
    """The default run on the shapes, the mean of three seeds."""
    runs = [train("shapes", out / f"shapes-{seed}", seed=seed, device="cpu").metrics or {} for seed in range(3)]

    def mean(key: str) -> float:
        return statistics.mean(run[key] for run in runs)

    return [
        row("shapes: top-1 of trained combinations among 128", mean("top1"), "", ">= 0.97"),
        row("shapes: top-1 of never-seen combinations among 128", mean("held_out_top1"), "", ">= 0.95"),
        row("shapes: training time", mean("train_seconds"), "s", "<= 60"),
    ]


def photo_training(archive: str, out: Path) -> list[Row]:
    metrics = train(archive, out / "photos", device="cpu", validation=False).metrics or {}
    return [
        row("photos: top-1 on the test images", metrics["top1"], "", ">= 0.895"),
        row("photos: training time", metrics["train_seconds"], "s", "<= 1200"),
    ]


def seconds_to_accuracy(training: ImageTextDataset, test: ImageTextDataset, goal: float, archive: str) -> float:
    """Seconds of our training until the test images are named right at that rate, measured every ten steps."""
    recipe = RECIPES["medium"]
    config = new_config(archive, "medium", 0, recipe, training)
    spent, started = 0.0, time.perf_counter()
    run, loader, optimizers, caption_tokens = prepare(config, training, torch.device("cpu"))
    for step, _ in enumerate(train_epoch(run.model, loader, optimizers, caption_tokens, recipe, epoch=0), start=1):
        if step % 10 == 0:
            spent += time.perf_counter() - started
            if zero_shot_accuracy(run, test) >= goal:
                return spent
            started = time.perf_counter()
    raise RuntimeError(f"one epoch does not reach {goal:.0%}")


class SeedBlock(nn.Module):
    """A residual block that halves the size, whatever its channels."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, stride=2),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.shortcut(x)).relu()


class SeedModel(nn.Module):
    """What the course set out from: an image tower of 3 → 16 → 4 → 1 channels, three encoder blocks, no shared space."""

    def __init__(self, vocabulary: int):
        super().__init__()
        self.image = nn.Sequential(
            SeedBlock(3, 16), SeedBlock(16, 4), SeedBlock(4, 1), nn.Flatten(), nn.Linear(16, 10), nn.LayerNorm(10)
        )
        self.embedding = nn.Embedding(vocabulary, 64)
        self.cls = nn.Parameter(torch.randn(64))
        block = nn.TransformerEncoderLayer(64, 4, 512, batch_first=True)
        self.text = nn.TransformerEncoder(block, 3, enable_nested_tensor=False)
        self.out = nn.Linear(64, 10)

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        words = self.embedding(tokens)
        captions = self.text(torch.cat([self.cls.expand(len(words), 1, -1), words], dim=1))[:, 0]
        return self.image(images) @ self.out(captions).softmax(dim=-1).T


def seed_step_seconds(archive: str, steps: int = 40) -> float:
    """Seconds of one step of the recipe that the course set out from, the median of some.

    Each step makes a new iterator over shuffled files, decodes 64 images, and uses one of each of the ten classes.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, paths = ImageFiles(archive), []
        for name in [name for name in source.files if "/train/" in f"/{name}"][::50]:  # files of every class, on disk
            path = Path(folder) / name.replace("/", "_")
            with source.open(name) as file:
                path.write_bytes(file.read())
            paths.append((path, Path(name).parent.name))
        classes = sorted({name for _, name in paths})
        tokenizer = WordTokenizer.from_captions(fill("a photo of a {}.", classes))
        tokens = tokenizer(fill("a photo of a {}.", classes))
        model = SeedModel(len(tokenizer))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)

        def one_step() -> None:
            order = torch.randperm(50_000)[:64] % len(paths)  # a new iterator shuffles the whole data set
            decoded = [(decode(paths[index][0]), paths[index][1]) for index in order.tolist()]
            by_class = {name: image for image, name in decoded}
            kinds = [index for index, name in enumerate(classes) if name in by_class]
            logits = model(torch.stack([by_class[classes[index]] for index in kinds]), tokens[kinds])
            targets = torch.arange(len(kinds))
            loss = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return statistics.median([seconds(one_step) for _ in range(steps + 5)][5:])


def decode(path: Path) -> Tensor:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        return pixels.view(image.height, image.width, 3).permute(2, 0, 1) / 255


def against_the_seed(archive: str) -> list[Row]:
    """Time to 27%, which the seed's recipe reached after 24,000 steps."""
    theirs = 24_000 * seed_step_seconds(archive)
    training, test = load_dataset(archive), load_dataset(archive, "test")
    ours = seconds_to_accuracy(training, test, 0.27, archive)
    return [
        row("photos: training to 27% test accuracy", ours, "s"),
        row("photos: the seed's recipe to 27%, 24,000 steps at the measured cost of one", theirs, "s"),
        row("photos: sooner at 27% than the seed's recipe", theirs / ours, "×", ">= 20"),
    ]


def main() -> None:
    if sys.argv[1:2] == ["--memory"]:
        return peak_memory_of(sys.argv[2])
    archive = os.environ.get("MINICLIP_TEST_ARCHIVE")
    with tempfile.TemporaryDirectory() as folder:
        rows = import_seconds() + shapes_seconds() + loss_times() + loss_memory() + text_side()
        if archive:
            rows += against_the_seed(archive)
        rows += shapes_training(Path(folder))
        if archive:
            rows += photo_training(archive, Path(folder))
    Path("build").mkdir(exist_ok=True)
    Path("build/bench.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
