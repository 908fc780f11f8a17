"""Two processes with half of a batch each, against one with the whole batch, and runs under `torchrun`."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from miniclip_utils import load_run, losses
from miniclip_utils.distributed import average_gradients, gather, own_share, rank, world_size
from miniclip_utils.files import read_json
from miniclip_utils.losses import clip_loss, sharded_clip_loss

ROOT = Path(__file__).parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
TRAIN = ["-m", "miniclip_utils.train", "--preset", "small", "--device", "cpu"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def test_one_process_is_the_whole_world():
    rows = torch.randn(3, 2)
    assert (world_size(), rank()) == (1, 0) and gather(rows) is rows and torch.equal(own_share(rows), rows)
    features = F.normalize(torch.randn(2, 5, 4), dim=-1)
    torch.testing.assert_close(sharded_clip_loss(*features, torch.tensor(5.0)), clip_loss(*features, torch.tensor(5.0)))


class Towers(nn.Module):
    """Two linear encoders and a scale, seeded, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(6, 4, dtype=torch.float64), nn.Linear(5, 4, dtype=torch.float64)
        self.scale = nn.Parameter(torch.tensor(7.0, dtype=torch.float64))

    def forward(self, images, texts, labels, name: str) -> torch.Tensor:
        image, text = F.normalize(self.image(images), dim=1), F.normalize(self.text(texts), dim=1)
        if name == "sharded_clip_loss":
            return sharded_clip_loss(image, text, self.scale)
        extra = (gather(labels),) if name == "multi_positive_loss" else ()
        return getattr(losses, name)(gather(image), gather(text), self.scale, *extra)


LOSSES = ["clip_loss", "chunked_clip_loss", "multi_positive_loss", "sharded_clip_loss"]


def batch() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(12, 6, dtype=torch.float64), torch.randn(12, 5, dtype=torch.float64), torch.randint(4, (12,))]


def worker(folder: str) -> None:
    """One of the processes: its half of the batch, averaged by our own function and by DistributedDataParallel."""
    torch.distributed.init_process_group("gloo")
    share = [tensor.chunk(world_size())[rank()] for tensor in batch()]
    results = {"rows": [own_share(torch.arange(7))]}
    for name in LOSSES:
        towers = Towers()
        value = towers(*share, name)
        value.backward()
        average_gradients(towers)
        results[name] = [value.detach(), *(parameter.grad for parameter in towers.parameters())]
        towers = Towers()
        parallel = nn.parallel.DistributedDataParallel(towers)
        parallel(*share, name).backward()
        results[f"{name}, DistributedDataParallel"] = [parameter.grad for parameter in towers.parameters()]
    torch.save(results, f"{folder}/{rank()}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> list[dict[str, list[torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "script.py"
    script.write_text(f"from tests.test_distributed import worker\nworker({str(folder)!r})\n")
    command = [*TORCHRUN, "--standalone", "--nproc_per_node=2", str(script)]
    result = subprocess.run(
        command, env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240
    )
    assert (folder / "1.pt").exists(), result.stderr
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in (0, 1)]


@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_have_the_gradients_of_one_with_the_double_batch(two_processes, name):
    towers = Towers()
    expected = towers(*batch(), name)  # without a process group, gather hands back what it gets
    expected.backward()
    torch.testing.assert_close(sum(process[name][0] for process in two_processes) / 2, expected.detach())
    for process in two_processes:
        for own, parameter in zip(process[name][1:], towers.parameters(), strict=True):
            assert (own - parameter.grad).norm() <= 1e-6 * parameter.grad.norm()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_averaged_as_distributed_data_parallel_does(two_processes, name):
    for process in two_processes:
        for own, reference in zip(process[name][1:], process[f"{name}, DistributedDataParallel"], strict=True):
            assert torch.equal(own, reference)


def test_processes_share_rows_evenly(two_processes):
    """Of seven rows each of two processes gets three, and the last one is left out."""
    assert [process["rows"][0].tolist() for process in two_processes] == [[0, 2, 4], [1, 3, 5]]


def torchrun(*arguments: str, processes: int = 2) -> subprocess.Popen:
    command = [*TORCHRUN, "--standalone", f"--nproc_per_node={processes}", *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def workers_of(process: subprocess.Popen) -> list[int]:
    """The process numbers of torchrun's workers."""
    return [int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_the_unchanged_command_trains_on_two_processes(tmp_path, color_folder):
    process = torchrun(
        *TRAIN, "--dataset", str(color_folder), "--out", str(tmp_path / "run"), "--epochs", "3", "--batch-size", "8"
    )
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert stdout.count("The run is in") == 1
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "model.safetensors",
        "config.json",
        "log.jsonl",
        "metrics.json",
    }
    metrics = read_json(tmp_path / "run/metrics.json")
    assert metrics["processes"] == 2 and metrics["command"].startswith("torchrun --nproc_per_node 2 -m miniclip_utils.train")
    assert load_run(tmp_path / "run").metrics == metrics


@pytest.mark.parametrize(
    "size, sentence",
    [("9", "2 processes cannot share batches of 9 evenly"), ("0", "the batch size of a recipe cannot be 0")],
)
def test_what_is_refused_is_said_once_and_so_is_a_note(tmp_path, color_folder, size, sentence):
    (color_folder / "stray.png").write_bytes((color_folder / "red/00.png").read_bytes())
    process = torchrun(*TRAIN, "--dataset", str(color_folder), "--out", str(tmp_path / "run"), "--batch-size", size)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode != 0
    said = [line for line in stderr.splitlines() if line.startswith(("error: ", "stopped"))]
    assert len(said) == 1 and said[0].startswith(f"error: {sentence}"), stderr
    assert stderr.count("note: left out: 1 of 49 pictures") == (size == "9")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_run_with_a_word_and_a_checkpoint(tmp_path, color_folder, victim):
    out = tmp_path / "run"
    process = torchrun(*TRAIN, "--dataset", str(color_folder), "--out", str(out), "--epochs", "10000", "--batch-size", "8")
    try:
        while not (out / "checkpoint.safetensors").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        workers = workers_of(process)
        environments = {worker: Path(f"/proc/{worker}/environ").read_bytes().split(b"\0") for worker in workers}
        (killed,) = [worker for worker, variables in environments.items() if f"RANK={victim}".encode() in variables]
        os.kill(killed, signal.SIGKILL)
        _, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode != 0
    # Perhaps behind the progress bar that the killed process left unfinished.
    assert re.search("(error: another process of this run has ended|stopped): .*--resume", stderr), stderr
    assert load_run(out).metrics is None
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
