"""All that `make gpu` measures, on the CPU in tiny sizes; and that each setting reaches what it is meant for."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch

from miniclip_utils import MiniCLIP, UserError, load_run, loop, train
from miniclip_utils.data import load_splits
from miniclip_utils.image_encoder import ResNet
from miniclip_utils.openai import CONFIGS
from tools import gpu, gpu_parts
from tools.gpu_parts import PRECISIONS, Job, Sizes
from tools.meter import Meter

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
TINY_CLIP = replace(
    CONFIGS["ViT-B/32"],
    embed_dim=16,
    image_size=32,
    vit_patch_size=16,
    vit_width=16,
    vit_layers=1,
    vit_num_heads=2,
    text_width=16,
    text_layers=1,
    text_num_heads=2,
)


def write_lesson(folder: Path, code: str) -> None:
    folder.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), folder / "00_short.ipynb")


@pytest.fixture
def sizes(tmp_path, tiny):
    write_lesson(tmp_path / "notebooks", "print('learned')")
    return Sizes(
        preset=tiny,
        seeds=(0, 1, 2),
        warm_up_steps=1,
        compiler="eager",
        loss_pairs=(8, 16),
        clip=TINY_CLIP,
        batches=(2, 4),
        chunk_size=2,
        repeats=1,
        notebooks=tmp_path / "notebooks",
    )


@pytest.fixture
def job(tmp_path, color_folder, sizes):
    (tmp_path / "out").mkdir()
    splits = load_splits(str(color_folder), 16)
    return Job(tmp_path / "out", str(color_folder), splits, sizes, Meter(CPU))


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_call_measures_everything(tmp_path, color_folder, sizes):
    out = tmp_path / "build/gpu"
    gpu.measure_all(str(color_folder), out, CPU, sizes)

    for seed in sizes.seeds:
        assert load_run(out / f"reference/seed-{seed}").metrics["seed"] == seed
    summary = read_json(out / "reference/summary.json")
    assert [run["seed"] for run in summary["runs"]] == [0, 1, 2]
    assert summary["train_seconds"]["mean"] == pytest.approx(sum(run["train_seconds"] for run in summary["runs"][1:]) / 2)
    assert summary["top1"]["mean"] == pytest.approx(sum(run["top1"] for run in summary["runs"]) / 3)

    runs = read_json(out / "precision.json")["runs"]
    assert [run["precision"] for run in runs] == PRECISIONS
    for run in runs:
        assert run["images_per_second"] == pytest.approx(16_000 / run["ms"])
        assert 0 <= run["validation_top1"] <= 1 and run["peak_gigabytes"] is None

    scale = read_json(out / "scale.json")
    assert [(row["loss"], row["pairs"]) for row in scale["losses"]] == [
        (loss, pairs) for pairs in (8, 16) for loss in ("chunked_clip_loss", "open_clip's ClipLoss")
    ]
    assert [(row["step"], row["pairs"]) for row in scale["steps"]] == [
        (step, pairs) for step in ("whole batch", "gradient cache") for pairs in (2, 4)
    ]
    for row in scale["losses"] + scale["steps"]:
        assert row["pairs_per_second"] == pytest.approx(row["pairs"] / row["seconds"]) and row["peak_gigabytes"] is None

    (lesson,) = read_json(out / "lessons.json")["lessons"]
    assert lesson["lesson"] == "00_short" and lesson["seconds"] > 0
    assert "learned" in (out / "lessons/00_short.ipynb").read_text()

    parts = read_json(out / "parts.json")
    assert list(parts) == ["reference", "precision", "scale", "lessons"]
    for part in parts.values():
        assert part["error"] is None and part["torch"] == torch.__version__ and part["device"].startswith("cpu")
    page = (out / "README.md").read_text()
    assert all(f"## {name}\n" in page for name in parts)
    assert all(f"| {row} |" in page for row in [*PRECISIONS, "gradient cache", "00_short", "standard_deviation"])

    gpu.measure_all(str(color_folder), out, CPU, sizes)
    assert read_json(out / "parts.json") == parts, "what is done is not measured again"
    with pytest.raises(UserError, match="numbers of another dataset"):
        gpu.measure_all("shapes", out, CPU, sizes)


def test_steps_are_those_of_the_run_and_do_not_change_it(job):
    """The means over the steps of an epoch are the line of its log; the weights are those of a run without steps."""
    gpu_parts.reference(job)
    folder = job.out / "reference/seed-1"
    steps, log = read_lines(folder / "steps.jsonl"), read_lines(folder / "log.jsonl")
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1)) and len(log) == 4
    each = len(steps) // len(log)
    for index, line in enumerate(log):
        epoch = steps[index * each : (index + 1) * each]
        assert sum(step["loss"] for step in epoch) / each == pytest.approx(line["loss"])
        assert sum(step["loss"] - step["floor"] for step in epoch) / each == pytest.approx(line["loss_above_floor"])
        assert epoch[-1]["learning_rate"] == line["learning_rate"]
        assert epoch[-1]["logit_scale"] == pytest.approx(line["logit_scale"])
        assert all(step["ms"] > 0 for step in epoch)
    train.train(job.dataset, job.out / "plain", job.sizes.preset, seed=1, device="cpu")
    assert (job.out / "plain/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (job.out / "plain/config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_each_precision_multiplies_as_it_says(job, monkeypatch):
    def settings(*_):
        precisions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        return {"set": [*precisions, loop.has_fast_bfloat16(torch.device("cuda"))]}

    monkeypatch.setattr(loop, "has_fast_bfloat16", lambda device: None)
    before = settings()
    monkeypatch.setattr(gpu_parts, "short_run", settings)
    gpu_parts.precision(job)
    assert [run["set"] for run in read_json(job.out / "precision.json")["runs"]] == [
        ["highest", False, False],
        ["high", True, False],
        *[["highest", False, True]] * 3,
    ]
    assert settings() == before


@pytest.mark.parametrize("precision", PRECISIONS[:4])
def test_channels_are_last_where_it_says_so(job, monkeypatch, precision):
    """In the images and in the weights of the convolutions, in every step."""
    seen, forward = [], ResNet.forward

    def look(self, images):
        if self.training:
            weight = self.stages[0][0].conv_1.weight
            seen.append([tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (images, weight)])
            assert [tensor.is_contiguous() for tensor in (images, weight)] == [not last for last in seen[-1]]
        return forward(self, images)

    monkeypatch.setattr(ResNet, "forward", look)
    gpu_parts.short_run(job, precision)
    assert seen == [["channels_last" in precision] * 2] * (2 * 2)  # two epochs of two batches


def test_both_towers_are_compiled_for_training_alone(job, monkeypatch):
    """Image and text tower; in place, so that the weights keep their names."""
    compiled, evaluate = [], gpu_parts.zero_shot_accuracy

    def compiler(graph, inputs):
        compiled.append(graph.code)
        return graph.forward

    def measured(run, dataset):
        before, value = len(compiled), evaluate(run, dataset)
        assert len(compiled) == before and not any("_orig_mod" in name for name in run.model.state_dict())
        return value

    monkeypatch.setattr(gpu_parts, "zero_shot_accuracy", measured)
    torch._dynamo.reset()
    eager = gpu_parts.short_run(replace_sizes(job, compiler=compiler), PRECISIONS[3])
    assert not compiled
    same = gpu_parts.short_run(replace_sizes(job, compiler=compiler), PRECISIONS[4])
    assert any("conv2d" in code for code in compiled) and any("embedding" in code for code in compiled)
    assert same["validation_top1"] == eager["validation_top1"] and same["warm_up_seconds"] > eager["warm_up_seconds"]


def replace_sizes(job: Job, **changes) -> Job:
    return replace(job, sizes=replace(job.sizes, **changes))


def test_a_step_has_the_same_gradients_with_the_cache(job, monkeypatch):
    """Up to bfloat16; and each weight has one, also after the pass without gradients."""
    models = []

    class Remembered(MiniCLIP):
        def __init__(self, *args):
            super().__init__(*args)
            models.append(self)

    monkeypatch.setattr(gpu_parts, "MiniCLIP", Remembered)
    monkeypatch.setattr(gpu_parts, "measure", lambda job, pairs, work: work())
    for cached in (False, True):
        gpu_parts.step_row(job, 4, cached)
    for (name, one), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert one.grad.abs().sum() > 0 or name.endswith("qkv.bias"), name
        torch.testing.assert_close(other.grad, one.grad, rtol=0.05, atol=0.05 * one.grad.abs().max().item(), msg=name)


def test_what_does_not_fit_is_noted_and_ends_the_doubling(job, monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    measure = gpu_parts.measure
    monkeypatch.setattr(
        gpu_parts, "measure", lambda job, pairs, work: (out_of_memory if pairs > 4 else measure)(job, pairs, work)
    )
    gpu_parts.scale(replace_sizes(job, loss_pairs=(4, 8), batches=(2, 4, 8, 16)))
    rows = read_json(job.out / "scale.json")
    assert [row["pairs"] for row in rows["steps"]] == [2, 4, 8] * 2
    for row in rows["losses"] + rows["steps"]:
        assert row.get("note") == (None if row["pairs"] <= 4 else "does not fit")
        assert ("seconds" in row) == (row["pairs"] <= 4)


def test_a_part_that_fails_is_named_and_run_again(tmp_path, color_folder, sizes, monkeypatch):
    calls = []
    parts = [gpu_parts.lessons, gpu_parts.reference]
    monkeypatch.setattr(gpu, "PARTS", {part: gpu.PARTS[part] for part in parts})
    monkeypatch.setattr(gpu, "run_part", lambda part, job, run=gpu.run_part: calls.append(part.__name__) or run(part, job))
    write_lesson(sizes.notebooks, "1 / 0")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"parts failed \(lessons\)"):
        gpu.measure_all(str(color_folder), out, CPU, sizes)
    assert "ZeroDivisionError" in read_json(out / "lessons.json")["lessons"][0]["note"]
    assert "00_short" in read_json(out / "parts.json")["lessons"]["error"]
    assert calls == ["lessons", "reference"]
    write_lesson(sizes.notebooks, "1 / 1")
    gpu.measure_all(str(color_folder), out, CPU, sizes)
    assert calls[2:] == ["lessons"] and "ZeroDivisionError" not in (out / "README.md").read_text()


def test_time_and_memory_of_a_gpu_are_its_own(tmp_path, monkeypatch):
    """Events and counts of torch.cuda, replaced by known ones; and the driver that nvidia-smi names."""

    class Event:
        clock = 0.0

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            Event.clock += 2.5
            self.time = Event.clock

        def elapsed_time(self, end):
            assert calls[-1] == "synchronize", "else the event may lie ahead"
            return end.time - self.time

    calls = []
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: calls.append(name))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 1_000_000_000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3_500_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card 100")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 570.12\necho 570.12\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    meter = Meter(torch.device("cuda"))
    meter.reset()
    assert meter.peak_gigabytes() == 2.5 and calls == ["synchronize", "empty_cache", "reset_peak_memory_stats"]
    assert meter.milliseconds([meter.mark() for _ in range(3)]) == [2.5, 2.5]
    assert meter.machine()["driver"] == "570.12" and meter.machine()["device"] == "Card 100"


def test_the_sizes_of_a_card_fit_together():
    """Powers of two up to the paper's batch, in whole chunks; and the lessons are there."""
    sizes = Sizes()
    assert sizes.batches[-1] == 32_768 and all(b == 2 * a for a, b in zip(sizes.batches, sizes.batches[1:], strict=False))
    assert sizes.preset in loop.RECIPES and len(list(sizes.notebooks.glob("*.ipynb"))) >= 10


def test_without_a_gpu_the_command_says_what_to_do(tmp_path):
    command = [sys.executable, "-m", "tools.gpu", str(tmp_path / "out")]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=hidden)
    assert result.returncode == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: torch finds no GPU here") and "make bench" in line
    assert not (tmp_path / "out").exists()
