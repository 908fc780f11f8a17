"""What a reader, a bad disk or a bad file may do to it: damaged files, kills, interrupts, many processes, odd texts.

With MINICLIP_CAMPAIGN=1 each part runs in its full length, which takes five minutes or more.
"""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from miniclip_utils import ImageTextDataset, UserError, doctor, load_run
from miniclip_utils.checkpoint import (
    RunConfig,
    load_checkpoint,
    new_run,
    read_tensors,
    save_checkpoint,
    save_model,
    write_config,
)
from miniclip_utils.data import BatchLoader, augment, normalize
from miniclip_utils.image_files import read_image
from miniclip_utils.losses import clip_loss, loss_floor, multi_positive_loss, siglip_loss
from miniclip_utils.optimizers import make_optimizers
from miniclip_utils.tokenizer import EOS, PAD, SOS, WordTokenizer, split_words

from .conftest import TINY

ROOT = Path(__file__).parent.parent
CAMPAIGN = os.environ.get("MINICLIP_CAMPAIGN") == "1"
FILES = 2_500 if CAMPAIGN else 150  # damaged files of each kind
KILLS = 30 if CAMPAIGN else 4
settings.register_profile("project", max_examples=1_000 if CAMPAIGN else 60, deadline=None, derandomize=not CAMPAIGN)
settings.load_profile("project")

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


# Any text, any batch

captions = st.lists(st.text(max_size=40), min_size=1, max_size=6)


@given(captions)
def test_every_text_becomes_tokens_and_comes_back(texts):
    tokenizer = WordTokenizer.from_captions(texts)
    tokens = tokenizer(texts)
    assert tokens.shape == (len(texts), tokenizer.context_length) and tokens.max() < len(tokenizer)
    assert tokenizer.unknown_words(texts) == []
    for text, row in zip(texts, tokens, strict=True):
        words = split_words(text)
        assert row[0] == SOS and row[len(words) + 1] == EOS and (row[len(words) + 2 :] == PAD).all()
        assert tokenizer.decode(row) == " ".join(["[SOS]", *words, "[EOS]"])


@given(captions, st.text(max_size=200))
def test_a_strange_text_is_read_or_refused(texts, stranger):
    tokenizer = WordTokenizer.from_captions(texts)
    fits = len(split_words(stranger)) + 2 <= tokenizer.context_length
    try:
        assert tokenizer(stranger).shape == (1, tokenizer.context_length) and fits
    except UserError:
        assert not fits


sizes = st.integers(1, 12)


@given(st.integers(0, 2**32), sizes, st.integers(4, 20), st.integers(4, 20), st.integers(0, 3), st.booleans())
def test_augmentation_invents_no_pixel(seed, n, height, width, shift, flip):
    torch.manual_seed(seed)
    images = torch.randint(256, (n, 3, height, width), dtype=torch.uint8)
    moved = augment(images, flip, shift)
    assert moved.shape == images.shape and moved.dtype == torch.uint8
    for before, after in zip(images, moved, strict=True):
        assert set(map(tuple, after.flatten(1).T.tolist())) <= set(map(tuple, before.flatten(1).T.tolist()))
    assert normalize(moved).isfinite().all()


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 50))
def test_an_epoch_takes_each_image_at_most_once(seed, n, batch_size):
    torch.manual_seed(seed)
    dataset = ImageTextDataset(torch.zeros(n, 3, 4, 4, dtype=torch.uint8), torch.arange(n), tuple(map(str, range(n))))
    loader = BatchLoader(dataset, batch_size, torch.device("cpu"), flip=True, shift=1)
    labels = [label for _, batch in loader for label in batch.tolist()]
    assert len(set(labels)) == len(labels) == len(loader) * min(n, batch_size) > n - batch_size


@given(st.integers(0, 2**32), st.integers(2, 16), st.integers(1, 8), st.floats(0.01, 100))
def test_laws_of_the_losses(seed, n, classes, scale):
    torch.manual_seed(seed)
    image, text = F.normalize(torch.randn(2, n, 5, dtype=torch.float64), dim=2)
    labels, scale = torch.randint(classes, (n,)), torch.tensor(scale, dtype=torch.float64)
    text = torch.stack([text[labels.tolist().index(label)] for label in labels.tolist()])  # equal labels, equal captions
    order = torch.randperm(n)

    def all_losses(image, text, labels):
        bias = torch.tensor(-3.0, dtype=torch.float64)
        return torch.stack(
            [
                clip_loss(image, text, scale),
                multi_positive_loss(image, text, scale, labels),
                siglip_loss(image, text, scale, bias, labels),
            ]
        )

    values = all_losses(image, text, labels)
    torch.testing.assert_close(values, all_losses(image[order], text[order], labels[order]))  # the order does not count
    torch.testing.assert_close(values, all_losses(text, image, labels))  # nor which side is which
    assert values[1] >= loss_floor(labels) - 1e-6  # the floor is one
    assert values.isfinite().all() and values[2] > 0


# Damaged files


def damaged(content: bytes, dice: random.Random) -> bytes:
    """A file with flipped, cut, doubled or foreign bytes, most of them where its header is."""
    data = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 8, 40))):
        place = dice.randrange(len(data)) if dice.random() < 0.5 else min(dice.randrange(64), len(data) - 1)
        match dice.randrange(6):
            case 0:
                data[place] ^= 1 << dice.randrange(8)
            case 1:
                data[place : place + 4] = dice.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
            case 2:
                del data[place : place + dice.randrange(1, 50)]
            case 3:
                data[place:place] = data[place : place + dice.randrange(1, 50)]
            case 4:
                data[place:place] = dice.randbytes(dice.randrange(1, 20))
            case 5:
                del data[max(1, place) :]
        data = data or bytearray(b"\0")
    return bytes(data)


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raises a TimeoutError in what takes longer."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_):
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


FORBIDDEN = {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "compile", "socket.connect"}
WATCHED: list[str] | None = None


def watch(event: str, _) -> None:
    if WATCHED is not None and event in FORBIDDEN:
        WATCHED.append(event)


sys.addaudithook(watch)


@contextmanager
def no_code_runs() -> Iterator[None]:
    """Fails if Python compiles, unpickles, starts or calls something on the way."""
    global WATCHED
    WATCHED = []
    try:
        yield
        assert WATCHED == []
    finally:
        WATCHED = None


def picture(format: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    noise = torch.randint(256, (24, 20, len(mode)), dtype=torch.uint8).squeeze(2).numpy()
    Image.fromarray(noise, mode).save(file, format)
    return file.getvalue()


def test_damaged_pictures_are_read_or_refused(tmp_path):
    kinds = [
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("JPEG", "RGB"),
        ("GIF", "L"),
        ("BMP", "RGB"),
        ("TIFF", "RGB"),
        ("WEBP", "RGB"),
    ]
    whole = [picture(*kind) for kind in kinds]
    read_image(io.BytesIO(whole[0]), 16)  # imports what decoding needs
    dice, refused = random.Random(0), 0
    for number in range(FILES):
        path = tmp_path / "picture"
        path.write_bytes(damaged(whole[number % len(whole)], dice))
        with time_limit(10), no_code_runs():
            try:
                image = read_image(path, 16)
                assert image.shape == (3, 16, 16) and image.dtype == torch.uint8
            except UserError as error:
                refused += 1
                assert str(path) in str(error)
    assert FILES / 3 < refused < FILES


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """A finished run, and its last checkpoint beside it."""
    vocabulary = ("a", "blue", "of", "photo", "red")
    config = RunConfig("shapes", "tiny", 0, TINY, {"epochs": 1}, ("red", "blue"), ("a photo of {}",), vocabulary, 8)
    run = new_run(config)
    optimizers = make_optimizers(run.model, 1e-3, 0.1, 0.1)
    run.model(torch.randn(4, 3, 16, 16), run.tokenizer(["red", "blue", "a red", "a blue"]))[0].square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    write_config(config, tmp_path)
    save_model(run.model, tmp_path)
    save_checkpoint(run.model, optimizers, tmp_path, {"epoch": 1, "seconds": 0.5, "log": []})
    (tmp_path / "metrics.json").write_text(json.dumps({"top1": 0.5}))
    return tmp_path


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "checkpoint.safetensors", "metrics.json"])
def test_damaged_runs_are_loaded_or_refused(run_folder, name):
    path = run_folder / name
    whole = path.read_bytes()
    header = whole[:2000] if name.endswith("safetensors") else whole
    run = load_run(run_folder)
    dice, refused = random.Random(0), 0
    for number in range(FILES if CAMPAIGN else FILES // 3):
        change_header = number % 2 and len(header) < len(whole)
        path.write_bytes(damaged(header, dice) + whole[len(header) :] if change_header else damaged(whole, dice))
        with time_limit(30), no_code_runs():
            try:
                if name == "checkpoint.safetensors":
                    load_checkpoint(run.model, make_optimizers(run.model, 1e-3, 0.1, 0.1), run_folder)
                else:
                    load_run(run_folder)
            except UserError as error:
                refused += 1
                assert name in str(error)
    assert refused > 10


def test_the_doctor_says_what_is_damaged_and_all_the_rest(tmp_path, monkeypatch, capsys):
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "config.json").write_text("half a fi")
    monkeypatch.setattr("miniclip_utils.checkpoint.WEIGHTS_FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["doctor"])
    doctor.main()
    said = capsys.readouterr().out
    assert "weights 'shapes'" in said and "cannot be read as JSON" in said and "free disk" in said


# Kills, interrupts, many processes

TRAINING = """
import os, sys, time
import torch
torch.set_num_threads(1)
from miniclip_utils import loop, model, train
from tests.conftest import TINY
model.PRESETS["tiny"] = TINY
loop.RECIPES["tiny"] = loop.Recipe(epochs=4, batch_size=16, shift=1)
loop.MOST_EPOCHS = 1
print("ready", flush=True)
for line in sys.stdin:  # "train" or "resume", and a folder
    what, dataset, out = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        sys.stderr = open(os.devnull, "w")
        if what == "train":
            train.train(dataset, out, "tiny")
        else:
            train.resume(out)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Trainer:
    """A process that has torch loaded, and forks one child for each run."""

    def __init__(self, dataset: Path):
        self.dataset = dataset
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", TRAINING], cwd=ROOT, **pipes)
        assert self.process.stdout.readline() == "ready\n"

    def start(self, what: str, out: Path) -> int:
        """Begins a run. Returns the number of its process."""
        self.process.stdin.write(f"{what}\t{self.dataset}\t{out}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self) -> int:
        """The exit code of the run."""
        return int(self.process.stdout.readline())


@pytest.fixture
def trainer(color_folder):
    trainer = Trainer(color_folder)
    yield trainer
    trainer.process.stdin.close()
    trainer.process.wait()


@needs_fork
def test_a_run_killed_at_any_moment_goes_on_to_the_same_weights(tmp_path, trainer):
    started = time.perf_counter()
    trainer.start("train", tmp_path / "whole")
    assert trainer.wait() == 0
    duration = time.perf_counter() - started
    expected = read_tensors(tmp_path / "whole/model.safetensors")

    dice, killed = random.Random(0), 0
    for number in range(10 * KILLS):
        out = tmp_path / f"run-{number}"
        moment = dice.random() * duration
        child = trainer.start("train", out)
        time.sleep(moment)
        with suppress(ProcessLookupError):  # it may have ended before
            os.kill(child, signal.SIGKILL)
        killed += trainer.wait() == -signal.SIGKILL
        if not (out / "metrics.json").exists():
            trainer.start("resume" if (out / "config.json").exists() else "train", out)
            assert trainer.wait() == 0, f"after a kill at {moment:.3f} s"
        reached = read_tensors(out / "model.safetensors")
        assert reached.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in reached.items()), f"killed at {moment:.3f} s"
        assert {path.suffix for path in out.iterdir()} <= {".safetensors", ".json", ".jsonl", ".tmp"}
        if killed == KILLS:
            break
    assert killed == KILLS


@needs_fork
def test_a_run_interrupted_in_a_kernel_is_kept_and_the_kernel_lives(tmp_path, color_folder):
    """The reader stops the cell that trains, and runs the next ones."""
    from jupyter_client.manager import start_new_kernel

    out = tmp_path / "run"
    manager, client = start_new_kernel(kernel_name="python3")

    def run(code: str) -> str:
        """What the cell prints, or the name of its error."""
        said = []

        def keep(message):
            content = message["content"]
            said.append(content.get("text") or content.get("ename") or "")
            if "training" in said[-1]:
                for _ in range(600):
                    if (out / "checkpoint.safetensors").exists():
                        break
                    time.sleep(0.05)
                manager.interrupt_kernel()

        client.execute_interactive(code, output_hook=keep, timeout=120)
        return "".join(said)

    try:
        train = f"""
            import sys
            sys.path.insert(0, {str(ROOT)!r})
            from miniclip_utils import loop, model, train
            from tests.conftest import TINY
            model.PRESETS["tiny"] = TINY
            loop.RECIPES["tiny"] = loop.Recipe(epochs=100_000, batch_size=16, shift=1)
            print("training")
            train.train({str(color_folder)!r}, {str(out)!r}, "tiny")
        """
        said = run("\n".join(line[12:] for line in train.splitlines()))
        assert "KeyboardInterrupt" in said, said
        assert "alive 2" in run("print('alive', 1 + 1)")
        answer = run(f"from miniclip_utils import load_run; print(load_run({str(out)!r}).metrics)")
        assert "None" in answer, answer
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
