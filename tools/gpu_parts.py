"""What `tools.gpu` measures: each part is a function that writes its file, and whose docstring stands above its numbers."""

import json
import shutil
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from open_clip import ClipLoss
from torch import Tensor

from miniclip_utils import fit, loop
from miniclip_utils.checkpoint import write_config
from miniclip_utils.data import ImageTextDataset
from miniclip_utils.errors import UserError
from miniclip_utils.evaluate import zero_shot_accuracy
from miniclip_utils.files import write_json
from miniclip_utils.gradient_cache import cached_backward
from miniclip_utils.losses import chunked_clip_loss
from miniclip_utils.model import MiniCLIP, ModelConfig
from miniclip_utils.openai import CONFIGS, CONTEXT_LENGTH, VOCAB_SIZE
from miniclip_utils.optimizers import make_optimizers

from .bench import forward_backward, unit_features
from .course import lessons_in, run_lesson
from .meter import Meter, Row

PRECISIONS = [
    "float32",
    "TF32",
    "bfloat16",
    "bfloat16 + channels_last",  # how the course trains
    "bfloat16 + channels_last + compile",
]


@dataclass(frozen=True)
class Sizes:
    """How much is run. The defaults are for one H100 or H200, and at most twenty minutes."""

    preset: str = "medium"  # of the models that are trained
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of the reference runs; three or more
    short_epochs: int = 2  # of the run in each precision
    warm_up_steps: int = 50  # of that run, which its median leaves out
    compiler: str = "inductor"  # backend of torch.compile
    loss_pairs: tuple[int, ...] = (32_768, 65_536, 131_072)
    clip: ModelConfig = CONFIGS["ViT-B/32"]  # which takes training steps
    batches: tuple[int, ...] = tuple(2**exponent for exponent in range(6, 16))  # pairs of such a step, up to the paper's
    chunk_size: int = 256  # of the gradient cache
    repeats: int = 2  # of what is measured in `scale`, after one that warms up
    notebooks: Path = Path(__file__).parent.parent / "notebooks"


@dataclass(frozen=True)
class Job:
    """What all parts share: where they write, the data, how much, and on which device."""

    out: Path
    dataset: str
    splits: dict[str, ImageTextDataset]
    sizes: Sizes
    meter: Meter


def reference(job: Job) -> None:
    """The course's training run, with several seeds. `top1` is the accuracy on the test images. The first run also warms
    up the device, so it does not count in the mean of the seconds. The goal is 0.94 on the original images, or
    0.91 on a JPEG archive of them, in 60 seconds."""
    folder, recipe = job.out / "reference", loop.RECIPES[job.sizes.preset]
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted call left
    runs: list[Row] = []
    for seed in job.sizes.seeds:
        out = folder / f"seed-{seed}"
        out.mkdir(parents=True)
        config = fit.new_config(job.dataset, job.sizes.preset, seed, recipe, job.splits["train"])
        write_config(config, out)
        with steps_written(out / "steps.jsonl", job.meter):
            metrics = fit.fit(config, job.splits, out, job.meter.device, resuming=False).metrics or {}
        runs.append({name: metrics[name] for name in ("seed", "top1", "train_seconds")})
    spreads = {"top1": spread(runs, "top1"), "train_seconds": spread(runs[1:], "train_seconds")}
    write_json(folder / "summary.json", {"runs": runs, **spreads})


def spread(rows: list[Row], name: str) -> dict[str, float]:
    values = [row[name] for row in rows]
    return {"mean": statistics.mean(values), "standard_deviation": statistics.stdev(values)}


@contextmanager
def steps_written(path: Path, meter: Meter) -> Iterator[None]:
    """In the `with` block, training adds a line for each step to a file, once an epoch: to read a loss is to wait for it."""

    def train_epoch(model, loader, optimizers, caption_tokens, recipe, epoch) -> Iterator[tuple[Tensor, Tensor]]:
        values, rates, marks = [], [], [meter.mark()]
        for loss, floor in loop.train_epoch(model, loader, optimizers, caption_tokens, recipe, epoch):
            marks.append(meter.mark())
            values.append(torch.stack([loss, floor, model.logit_scale.detach().exp()]))
            rates.append(optimizers[0].param_groups[0]["lr"])
            yield loss, floor
        read = zip(torch.stack(values).tolist(), rates, meter.milliseconds(marks), strict=True)
        names = ("step", "loss", "floor", "logit_scale", "learning_rate", "ms")
        with path.open("a") as file:
            for step, (of_step, rate, ms) in enumerate(read, start=epoch * len(loader) + 1):
                file.write(json.dumps(dict(zip(names, (step, *of_step, rate, ms), strict=True))) + "\n")

    with patch.object(fit, "train_epoch", train_epoch):
        yield


def precision(job: Job) -> None:
    """A short run in each precision, on images of full size; the course trains in the fourth. `ms` is the median of its
    steps after the first ones, and `warm_up_seconds` is how much longer those took: there compilation shows.
    `validation_top1` is the accuracy at the end."""
    rows: list[Row] = []
    for name in PRECISIONS:
        with multiplying_in(name):
            rows.append({"precision": name, **short_run(job, name)})
        write_json(job.out / "precision.json", {"runs": rows})


@contextmanager
def multiplying_in(precision: str) -> Iterator[None]:
    """In the `with` block, torch and the training loop multiply in that precision."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "TF32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "TF32"
    try:
        with patch.object(loop, "has_fast_bfloat16", lambda device: "bfloat16" in precision):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def short_run(job: Job, precision: str) -> Row:
    sizes, meter = job.sizes, job.meter
    meter.reset()
    recipe = replace(loop.RECIPES[sizes.preset], epochs=sizes.short_epochs)
    config = fit.new_config(job.dataset, sizes.preset, 0, recipe, job.splits["train"])
    run, loader, optimizers, caption_tokens = fit.prepare(config, job.splits["train"], meter.device)
    if "channels_last" not in precision:  # which `prepare` and the loader have chosen
        run.model.to(memory_format=torch.contiguous_format)
        run.model.image_encoder.register_forward_pre_hook(lambda module, images: images[0].contiguous())
    if "compile" in precision:  # the towers, since the loop calls the model's methods; in place, so weights keep their names
        run.model.image_encoder.compile(backend=sizes.compiler)
        run.model.text_encoder.compile(backend=sizes.compiler)
    marks = [meter.mark()]
    for epoch in range(recipe.epochs):
        for _ in loop.train_epoch(run.model, loader, optimizers, caption_tokens, recipe, epoch):
            marks.append(meter.mark())
    milliseconds, peak = meter.milliseconds(marks), meter.peak_gigabytes()
    first, rest = milliseconds[: sizes.warm_up_steps], milliseconds[sizes.warm_up_steps :]
    ms = statistics.median(rest)
    with torch.compiler.set_stance("force_eager"):  # nothing is compiled for the evaluation
        accuracy = zero_shot_accuracy(run, job.splits["validation"])
    return {
        "ms": ms,
        "images_per_second": 1000 * loader.batch_size / ms,
        "peak_gigabytes": peak,
        "validation_top1": accuracy,
        "warm_up_seconds": (sum(first) - ms * len(first)) / 1000,
    }


def scale(job: Job) -> None:
    """First losses of N pairs, forward and backward. Memory is what they take beyond the features, which are 512 numbers
    each; the course promises at most 4 GB for 131,072 pairs. Then whole training steps of a CLIP on synthetic pairs, in
    bfloat16 with the chunked loss, the whole batch at once or with the gradient cache, until a batch does not fit."""
    rows: dict[str, list[Row]] = {"losses": [], "steps": []}
    losses: dict[str, Callable[..., Tensor]] = {"chunked_clip_loss": chunked_clip_loss, "open_clip's ClipLoss": ClipLoss()}
    for pairs in job.sizes.loss_pairs:
        for name, loss in losses.items():
            rows["losses"].append({"loss": name, "pairs": pairs, **if_it_fits(loss_row, job, pairs, loss)})
            write_json(job.out / "scale.json", rows)
    for name, cached in {"whole batch": False, "gradient cache": True}.items():
        for pairs in job.sizes.batches:
            rows["steps"].append({"step": name, "pairs": pairs, **if_it_fits(step_row, job, pairs, cached)})
            write_json(job.out / "scale.json", rows)
            if "note" in rows["steps"][-1]:
                break


def if_it_fits(measured: Callable[..., Row], *args: Any) -> Row:
    try:
        return measured(*args)
    except torch.OutOfMemoryError:  # it holds the tensors of the failed work until here; the next `reset` frees their memory
        return {"note": "does not fit"}


def loss_row(job: Job, pairs: int, loss: Callable[..., Tensor]) -> Row:
    job.meter.reset()
    inputs = unit_features(pairs, job.meter.device)
    job.meter.reset()  # the features do not count
    return measure(job, pairs, partial(forward_backward, loss, inputs))


def step_row(job: Job, pairs: int, cached: bool) -> Row:
    config, device = job.sizes.clip, job.meter.device
    job.meter.reset()
    torch.manual_seed(0)
    with device:
        model = MiniCLIP(config, VOCAB_SIZE, CONTEXT_LENGTH)
        images = torch.randn(pairs, 3, config.image_size, config.image_size)
        tokens = torch.randint(1, VOCAB_SIZE - 1, (pairs, CONTEXT_LENGTH))
        tokens[:, -1] = VOCAB_SIZE - 1  # [EOS]
    (adamw,) = make_optimizers(model, 5e-4, 0.0, 0.2)  # a Vision Transformer has nothing for Muon

    def encode(tower: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            features = tower(batch)
        return F.normalize(features.float(), dim=-1)

    def loss(image_features: Tensor, text_features: Tensor) -> Tensor:
        return chunked_clip_loss(image_features, text_features, model.logit_scale.exp())

    encode_image, encode_text = partial(encode, model.encode_image), partial(encode, model.encode_text)

    def step() -> None:
        model.zero_grad()
        if cached:
            cached_backward(encode_image, encode_text, images, tokens, loss, job.sizes.chunk_size)
        else:
            loss(encode_image(images), encode_text(tokens)).backward()
        adamw.step()
        model.clamp_logit_scale()

    return measure(job, pairs, step)


def measure(job: Job, pairs: int, work: Callable[[], None]) -> Row:
    """Seconds of some work on so many pairs, the median after one without a clock, and its peak memory since `reset`."""
    work()
    marks = [job.meter.mark()]
    for _ in range(job.sizes.repeats):
        work()
        marks.append(job.meter.mark())
    seconds = statistics.median(job.meter.milliseconds(marks)) / 1000
    return {"seconds": seconds, "pairs_per_second": pairs / seconds, "peak_gigabytes": job.meter.peak_gigabytes()}


def lessons(job: Job) -> None:
    """Every lesson, run from its first to its last cell on this machine, and what it reached. Memory is the computer's."""
    job.meter.reset()  # the kernels share the device with this process
    rows: list[Row] = []
    for path in lessons_in(job.sizes.notebooks):
        try:
            rows.append({"lesson": path.stem, **run_lesson(path, job.out / "lessons")._asdict()})
        except UserError as error:
            rows.append({"lesson": path.stem, "note": str(error)})
        write_json(job.out / "lessons.json", {"lessons": rows})
    stopped = [row["lesson"] for row in rows if "note" in row]
    if stopped:
        raise UserError(f"lessons stopped ({', '.join(stopped)}): see what lessons.json says of them")
