"""Training runs of a second each: they repeat, they resume, and they end well when something goes wrong."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from miniclip_utils import UserError, fit, load_run, loop, train
from miniclip_utils.checkpoint import read_tensors
from miniclip_utils.data import load_splits
from miniclip_utils.files import read_json

ROOT = Path(__file__).parent.parent


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    one_tensors, other_tensors = weights(one), weights(other)
    assert one_tensors.keys() == other_tensors.keys()
    for name, tensor in one_tensors.items():
        assert torch.equal(tensor, other_tensors[name]), name


@pytest.fixture
def finished(tmp_path, color_folder, tiny):
    """An uninterrupted run."""
    train.train(str(color_folder), tmp_path / "finished", tiny)
    return tmp_path / "finished"


def test_a_run_writes_the_files_that_the_readme_names(finished):
    assert {path.name for path in finished.iterdir()} == {"model.safetensors", "config.json", "log.jsonl", "metrics.json"}
    metrics = read_json(finished / "metrics.json")
    names = {"dataset", "top1", "held_out_top1", "train_seconds", "images_per_second", "device", "seed", "versions"}
    assert names <= metrics.keys()
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2, 3, 4]
    assert log[0]["loss_above_floor"] > 0


def test_it_learns(tmp_path, color_folder, tiny):
    run = train.train(str(color_folder), tmp_path / "run", tiny, epochs=10)
    assert run.metrics["top1"] == 1.0
    assert load_run(tmp_path / "run").metrics == run.metrics


@pytest.mark.parametrize("flip, shift", [(True, 2), (False, 0)])
def test_a_recipe_chooses_batches_rates_and_augmentation(color_folder, tiny, flip, shift):
    training = load_splits(str(color_folder), 16)["train"]
    rates = {"learning_rate": 3e-3, "convolution_learning_rate": 0.2, "weight_decay": 0.01}
    recipe = loop.Recipe(batch_size=8, flip=flip, shift=shift, **rates)
    config = fit.new_config("colors", tiny, 0, recipe, training)
    run, loader, (adamw, muon), caption_tokens = fit.prepare(config, training, torch.device("cpu"))
    assert (loader.batch_size, loader.flip, loader.shift) == (8, flip, shift)
    assert (adamw.defaults["lr"], muon.defaults["lr"], adamw.param_groups[0]["weight_decay"]) == (3e-3, 0.2, 0.01)
    assert caption_tokens.shape == (2, len(training.templates), run.tokenizer.context_length)
    assert not run.model.image_encoder.stem.weight.requires_grad  # whitened
    assert loop.Recipe().flip and loop.Recipe().shift == 2


def test_same_seed_same_weights(tmp_path, color_folder, tiny, finished):
    train.train(str(color_folder), tmp_path / "again", tiny)
    assert_same_weights(finished, tmp_path / "again")
    train.train(str(color_folder), tmp_path / "other", tiny, seed=1)
    assert not torch.equal(
        weights(finished)["image_projection.weight"], weights(tmp_path / "other")["image_projection.weight"]
    )


@contextmanager
def interrupted_after(epochs_before, monkeypatch):
    """A training in this context must be stopped by Ctrl-C when its next epoch begins."""
    epochs, train_epoch = [], fit.train_epoch

    def interrupted(*args):
        if len(epochs) == epochs_before:
            raise KeyboardInterrupt
        epochs.append(0)
        return train_epoch(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "train_epoch", interrupted)
        yield


@pytest.mark.parametrize("epochs_before", [0, 1, 3])
def test_a_resumed_run_reaches_the_same_weights(tmp_path, color_folder, tiny, finished, monkeypatch, epochs_before):
    with interrupted_after(epochs_before, monkeypatch):
        train.train(str(color_folder), tmp_path / "run", tiny)
    torch.manual_seed(12345)  # whatever else drew random numbers in between
    train.resume(tmp_path / "run")
    assert_same_weights(finished, tmp_path / "run")


def test_a_resumed_run_mirrors_its_pictures_as_before(tmp_path, color_folder, tiny, monkeypatch):
    alternate = {"epochs": 3, "alternate": True}
    train.train(str(color_folder), tmp_path / "whole", tiny, **alternate)
    with interrupted_after(1, monkeypatch):
        train.train(str(color_folder), tmp_path / "run", tiny, **alternate)
    train.resume(tmp_path / "run")
    assert_same_weights(tmp_path / "whole", tmp_path / "run")
    train.train(str(color_folder), tmp_path / "at-random", tiny, epochs=3)
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "whole", tmp_path / "at-random")


def test_without_validation_all_pictures_are_trained_on(tmp_path, color_folder, tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "fit", lambda config, splits, *rest, **more: seen.append((config, splits)))
    for validation in (True, False):
        train.train(str(color_folder), tmp_path / str(validation), tiny, validation=validation)
    (_, usual), (config, whole) = seen
    assert whole.keys() == {"train", "test"} and not config.validation
    labels = torch.cat([usual["train"].labels, usual["validation"].labels])
    assert len(usual["validation"]) > 0 and whole["train"].labels.equal(labels) and len(whole["train"].images) == len(labels)


def test_a_run_without_validation_resumes_as_it_began(tmp_path, color_folder, tiny, monkeypatch):
    train.train(str(color_folder), tmp_path / "whole", tiny, validation=False, epochs=2)
    with interrupted_after(1, monkeypatch):
        train.train(str(color_folder), tmp_path / "run", tiny, validation=False, epochs=2)
    run = train.resume(tmp_path / "run")
    assert_same_weights(tmp_path / "whole", tmp_path / "run")
    log = (tmp_path / "run/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["validation_top1"] for line in log] == [None, None]
    assert run.metrics["command"].endswith(" --no-validation")


HOSTILE = [None, -1, 10**30, 2.5, float("nan"), 1e38, "x", "3", [], {}, True]


@pytest.mark.parametrize("field", [*(field.name for field in fields(loop.Recipe)), "seed", "templates"])
def test_values_of_a_recipe_that_were_edited_by_hand_resume_or_are_refused(tmp_path, color_folder, tiny, monkeypatch, field):
    with interrupted_after(1, monkeypatch):
        train.train(str(color_folder), tmp_path / "run", tiny, epochs=2)
    monkeypatch.setattr(train, "fit", Mock())  # what training does with a value that is accepted has its own tests
    path = tmp_path / "run/config.json"
    whole, refused = read_json(path), 0
    for value in HOSTILE:
        config = whole | {field: value} if field in whole else whole | {"recipe": whole["recipe"] | {field: value}}
        path.write_text(json.dumps(config))
        try:
            train.resume(tmp_path / "run")
        except UserError as error:
            refused += 1
            assert "config.json" in str(error)
    assert refused >= len(HOSTILE) - 2, "no more than two of these can be a value of any field"


def test_an_edited_model_that_cannot_be_is_refused(tmp_path, color_folder, tiny, monkeypatch):
    with interrupted_after(0, monkeypatch):
        train.train(str(color_folder), tmp_path / "run", tiny)
    config = read_json(tmp_path / "run/config.json")
    config["model"]["text_num_heads"] = 3
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="config.json does not describe a model"):
        train.resume(tmp_path / "run")


@pytest.mark.parametrize("change", ["another class", "a class more", "a class less"])
def test_a_run_whose_classes_have_changed_is_not_resumed(tmp_path, color_folder, tiny, monkeypatch, change):
    shutil.copytree(color_folder / "red", color_folder / "green")
    with monkeypatch.context() as patch:
        patch.setattr(fit, "train_epoch", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train.train(str(color_folder), tmp_path / "run", tiny)
    if change != "a class more":
        shutil.rmtree(color_folder / "green")
    if change != "a class less":
        shutil.copytree(color_folder / "red", color_folder / "pink")
    with pytest.raises(UserError, match="other classes than when .* began"):
        train.resume(tmp_path / "run")


# What the number of pictures decides, and what it does not


def test_the_preset_follows_from_the_data_set_and_its_size():
    assert train.default_preset("shapes", 20_000) == "small"
    assert [train.default_preset("photos", pictures) for pictures in (2, 9_999, 10_000, 47_500)] == ["small"] * 2 + [
        "medium"
    ] * 2


def test_a_small_folder_gets_many_epochs_and_says_so_before_it_starts(tmp_path, color_folder, tiny, monkeypatch):
    monkeypatch.setattr(loop, "MOST_EPOCHS", 7)
    monkeypatch.setitem(loop.RECIPES, "tiny", loop.Recipe(epochs=4, batch_size=128, shift=1))
    said = []

    def say(line):
        assert not (tmp_path / "run/log.jsonl").exists()
        said.append(line)

    run = train.train(str(color_folder), tmp_path / "run", tiny, say=say)
    assert said == ["42 training pictures of 2 classes: preset tiny, 7 epochs in batches of 32, 7 steps"]
    assert (run.config.recipe["epochs"], run.config.recipe["batch_size"], run.metrics["steps"]) == (7, 32, 7)
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 7


def test_what_is_asked_for_wins(tmp_path, color_folder, tiny, monkeypatch):
    monkeypatch.setattr(loop, "MOST_EPOCHS", 7)
    run = train.train(str(color_folder), tmp_path / "run", tiny, epochs=2, batch_size=8, learning_rate=1e-3)
    recipe = run.config.recipe
    assert (recipe["epochs"], recipe["batch_size"], recipe["learning_rate"], run.metrics["steps"]) == (2, 8, 1e-3, 10)


# Above guessing or not


def metrics(top1: float, images: int, needed: float | None) -> dict:
    return {"top1": top1, "test_images": images, "guessing_top1": 1 / 3, "above_guessing_top1": needed}


@pytest.mark.parametrize(
    "top1, images, needed, is_clear, says",
    [
        (0.555, 600, 0.38, True, "55.5% ± 2.0% of 600 test pictures are classified correctly; guessing reaches 33.3%."),
        (0.335, 600, 0.38, False, "Below 38.0% this may be guessing"),
        (0.38, 600, 0.38, True, "38.0%"),
        (torch.tensor(0.38).item() - 1e-8, 600, 0.38, True, "38.0%"),
        (1.0, 3, None, False, "So few test pictures cannot tell"),
    ],
)
def test_the_verdict_on_a_run(top1, images, needed, is_clear, says):
    sentence, clear = fit.verdict(metrics(top1, images, needed))
    assert says in sentence and clear == is_clear
    assert ("guessing:" in sentence) == (not is_clear)


def test_the_metrics_say_what_guessing_reaches(finished):
    """Two of each of two classes are in the test: guessing gets all four right in one of sixteen cases."""
    metrics = read_json(finished / "metrics.json")
    assert (metrics["test_images"], metrics["guessing_top1"], metrics["above_guessing_top1"]) == (4, 0.5, None)


def test_a_run_on_sentences_reports_retrieval(tmp_path, color_folder, tiny):
    """All pictures of a colour share its two sentences."""
    lines = ["file,caption"]
    for path in sorted(color_folder.glob("*/*.png")):
        name, color = path.relative_to(color_folder), path.parent.name
        lines += [f"{name},{wording.format(color)}" for wording in ("a {} picture", "this is {}")]
    (color_folder / "captions.csv").write_text("\n".join(lines))
    run = train.train(str(color_folder), tmp_path / "run", tiny, epochs=12)
    found = run.metrics["retrieval"]
    assert (found["pictures"], found["sentences"], run.metrics["test_images"]) == (5, 4, 5)
    assert run.metrics["top1"] == found["image_to_text"]["recall@1"] == found["text_to_image"]["recall@1"] == 1
    assert run.metrics["guessing_top1"] == pytest.approx(0.5)  # two of four sentences are right
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert log[-1]["validation_top1"] == 1
    sentence, is_clear = fit.verdict(run.metrics)
    assert (
        "of 5 test pictures have a sentence of their own among the 1 most similar of 4; guessing reaches 50.0%" in sentence
    )
    assert not is_clear  # all five right by guessing: one case in 32


@pytest.mark.parametrize("sentences, k", [(4, 1), (15, 5), (29, 5), (30, 10)])
@pytest.mark.parametrize("share, is_clear", [(0.9, True), (0.4, False)])
def test_the_verdict_on_a_run_with_sentences_asks_for_what_guessing_seldom_finds(sentences, k, share, is_clear):
    recalls = {f"recall@{other}": share if other == k else 0.0 for other in (1, 5, 10)}
    way = recalls | {"guessing": {f"recall@{other}": 1 / 3 if other == k else 0.99 for other in (1, 5, 10)}}
    found = {"pictures": 60, "sentences": sentences, "image_to_text": way, "text_to_image": way}
    sentence, clear = fit.verdict(metrics(0.0, 60, 0.9) | {"retrieval": found})
    assert clear == is_clear and f"among the {k} most similar of {sentences}; guessing reaches 33.3%" in sentence
    assert f"{share:.1%} of the sentences" in sentence


@pytest.mark.parametrize("top1", [0.9, 0.5])
def test_the_command_warns_of_a_result_near_guessing(tmp_path, monkeypatch, capsys, top1):
    measured = metrics(top1, 60, 0.6)
    monkeypatch.setattr(train, "train", lambda *_, **__: Mock(metrics=measured))
    monkeypatch.setattr(sys, "argv", ["train", "--out", str(tmp_path / "run")])
    train.main()
    said = capsys.readouterr()
    assert ("warning: 50.0%" in said.err) == (top1 == 0.5)
    assert ("90.0% ± 3.9%" in said.out) == (top1 == 0.9)


# From another run


@pytest.fixture
def animals(tmp_path, color_folder):
    """Other classes, one of a known name, and longer words in it."""
    folder = tmp_path / "animals"
    shutil.copytree(color_folder / "red", folder / "red")
    shutil.copytree(color_folder / "blue", folder / "very_green")
    return folder


def test_a_run_starts_from_another_one(tmp_path, color_folder, tiny, finished, animals):
    training = load_splits(str(animals), 16)["train"]
    config = replace(fit.new_config("animals", tiny, 3, loop.Recipe(), training), start=str(finished))
    run, *_ = fit.prepare(config, training, torch.device("cpu"))
    for name, tensor in run.model.image_encoder.state_dict().items():
        assert torch.equal(tensor, weights(finished)[f"image_encoder.{name}"]), name
    assert torch.equal(run.model.image_projection.weight, weights(finished)["image_projection.weight"])
    assert not run.model.image_encoder.stem.weight.requires_grad
    scratch, *_ = fit.prepare(replace(config, start=None), training, torch.device("cpu"))
    row = {word: 4 + place for place, word in enumerate(run.tokenizer.vocabulary)}
    vectors, fresh = (each.model.text_encoder.token_embedding.weight for each in (run, scratch))
    assert torch.equal(vectors[row["green"]], fresh[row["green"]]) and not torch.equal(
        vectors[row["red"]], fresh[row["red"]]
    )


def test_the_run_says_where_it_started(tmp_path, tiny, finished, animals, monkeypatch):
    said = []
    monkeypatch.chdir(tmp_path)
    run = train.train(str(animals), "run", start="finished", say=said.append)
    assert run.config.start == load_run("run").config.start == str(finished)
    assert run.config.preset == "tiny" and f"preset tiny from {str(finished)!r}, 1 epoch " in said[0]
    assert run.metrics["command"].endswith(f"--from {finished}")
    assert run.config.recipe["learning_rate"] == loop.RATES_FROM * loop.RECIPES["tiny"].learning_rate
    train.train(str(animals), "scratch", "tiny", epochs=1)
    assert "--from" not in read_json(tmp_path / "scratch/metrics.json")["command"]


@pytest.mark.parametrize("epochs_before", [0, 1])
def test_a_resumed_run_from_another_one_reaches_the_same_weights(
    tmp_path, tiny, finished, animals, monkeypatch, epochs_before
):
    train.train(str(animals), tmp_path / "whole", start=finished, epochs=2)
    with interrupted_after(epochs_before, monkeypatch):
        train.train(str(animals), tmp_path / "run", start=finished, epochs=2)
    if epochs_before:  # the checkpoint holds all that came from there
        shutil.rmtree(finished)
    train.resume(tmp_path / "run")
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


def test_a_start_that_does_not_go_with_the_rest_is_refused(tmp_path, color_folder, tiny, finished):
    out = tmp_path / "run"
    with pytest.raises(UserError, match="is of the preset 'tiny', not 'small': leave --preset out"):
        train.train(str(color_folder), out, "small", start=finished)
    with pytest.raises(UserError, match="no run .*nowhere"):
        train.train(str(color_folder), out, start="nowhere")
    config = read_json(finished / "config.json") | {"preset": "enormous"}
    (finished / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="has the preset 'enormous', for which there is no recipe"):
        train.train(str(color_folder), out, start=finished)
    assert not out.exists()


KILLED_RUN = """
import sys
from miniclip_utils import loop, model, train
from tests.conftest import TINY
model.PRESETS["tiny"] = TINY
loop.RECIPES["tiny"] = loop.Recipe(epochs=4, batch_size=16, shift=1)
loop.MOST_EPOCHS = 1
train.train(sys.argv[1], sys.argv[2], "tiny")
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path, color_folder, tiny, finished):
    out = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", KILLED_RUN, str(color_folder), str(out)], cwd=ROOT)
    while not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if not (out / "metrics.json").exists():
        load_run(out)  # usable as it is
        train.resume(out)
    for name, tensor in weights(out).items():  # another process may have had another number of threads
        torch.testing.assert_close(tensor, weights(finished)[name], rtol=1e-3, atol=1e-4)


def test_a_device_that_is_not_there_is_named(tmp_path, color_folder, tiny):
    with pytest.raises(UserError, match="abacus"):
        train.train(str(color_folder), tmp_path / "run", tiny, device="abacus")


def test_a_single_training_image_is_refused(tmp_path, color_folder, tiny, monkeypatch):
    splits = train.load_splits(str(color_folder), 16)
    one = replace(splits["train"], images=splits["train"].images[:1], labels=splits["train"].labels[:1])
    monkeypatch.setattr(train, "load_splits", lambda *_, **__: splits | {"train": one})
    with pytest.raises(UserError, match="too few training images"):
        train.train(str(color_folder), tmp_path / "run", tiny)


def test_a_stop_before_the_run_begins_does_not_speak_of_resuming(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "load_splits", Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr(sys, "argv", ["train", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit):
        train.main()
    assert capsys.readouterr().err == "stopped before the run began\n"


def test_a_folder_with_a_run_is_not_overwritten(color_folder, tiny, finished):
    before = (finished / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="holds a run already"):
        train.train(str(color_folder), finished, tiny)
    with pytest.raises(UserError, match="has ended"):
        train.resume(finished)
    assert (finished / "model.safetensors").read_bytes() == before


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_epoch(tmp_path, color_folder, tiny, monkeypatch):
    calls = []
    right = loop.batch_loss

    def breaks_in_the_third_epoch(*args):
        calls.append(0)
        return right(*args) * (float("nan") if len(calls) > 5 else 1)

    monkeypatch.setattr(loop, "batch_loss", breaks_in_the_third_epoch)
    with pytest.raises(UserError, match="no longer a number in epoch 3 .* the 2 epochs before it are kept"):
        train.train(str(color_folder), tmp_path / "run", tiny)
    assert all(tensor.isfinite().all() for tensor in load_run(tmp_path / "run").model.state_dict().values())


def test_a_batch_of_one_pair_is_refused(tmp_path, color_folder, tiny):
    with pytest.raises(UserError, match="nothing to contrast"):
        train.train(str(color_folder), tmp_path / "run", tiny, epochs=1, batch_size=1)
    assert not (tmp_path / "run").exists()


def test_one_class_is_refused(tmp_path, color_folder, tiny):
    for image in (color_folder / "red").iterdir():
        image.unlink()
    (color_folder / "red").rmdir()
    with pytest.raises(UserError, match="only the class 'blue'"):
        train.train(str(color_folder), tmp_path / "run", tiny)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_stops_the_run_with_the_last_checkpoint_whole(tmp_path, color_folder, tiny, monkeypatch):
    from miniclip_utils import checkpoint

    saves = []
    write_file = checkpoint.write_file

    def full_after_two_epochs(path, content):
        if path.name == "checkpoint.safetensors":
            saves.append(0)
            if len(saves) > 2:
                raise UserError("cannot write: no space left on device")
        write_file(path, content)

    monkeypatch.setattr(checkpoint, "write_file", full_after_two_epochs)
    with pytest.raises(UserError, match="no space"):
        train.train(str(color_folder), tmp_path / "run", tiny)
    monkeypatch.setattr(checkpoint, "write_file", write_file)
    train.resume(tmp_path / "run")


def run_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "miniclip_utils.train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_command_line_trains_and_says_where_the_run_is(tmp_path, color_folder):
    arguments = [
        "--dataset",
        str(color_folder),
        "--preset",
        "small",
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--device",
        "cpu",
    ]
    result = run_command(*arguments, "--out", "runs/mine", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "runs/mine" in result.stdout
    assert "42 training pictures of 2 classes: preset small, 1 epoch in batches of 8, 5 steps\n" in result.stderr
    assert "So few test pictures" in result.stderr.splitlines()[-1]
    assert read_json(tmp_path / "runs/mine/metrics.json")["seed"] == 0


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--dataset", "nowhere"], "nowhere"),
        (["--device", "abacus"], "abacus"),
        (["--dataset", ""], "empty"),
        (["--seed", str(2**42)], "too large"),
        (["--epochs", "0"], "a whole number from 1"),
        (["--learning-rate", "0"], "a number from 1e-09 to 10"),
        (["--learning-rate", "1e38"], "a number from 1e-09 to 10"),
        (["--learning-rate", "nan"], "a number from 1e-09 to 10"),
        (["--epochs", "1" + 400 * "0"], "a whole number from 1"),
        (["--resume", "--out", "nowhere"], "nowhere"),
        (["--resume", "--epochs", "3"], "keeps its settings"),
        (["--resume", "--from", "shapes"], "keeps its settings"),
        (["--resume", "--no-validation"], "keeps its settings"),
        (["--from", "nowhere"], "no run"),
        (["--from", "cifar10", "--preset", "small"], "leave --preset out"),
    ],
)
def test_command_line_errors_are_one_sentence(tmp_path, arguments, word):
    result = run_command(*arguments, cwd=tmp_path)
    assert result.returncode == 2 and result.stdout == ""
    assert word in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_interrupted_command_says_how_to_go_on(tmp_path, color_folder):
    arguments = ["--dataset", str(color_folder), "--preset", "small", "--epochs", "10000", "--batch-size", "8"]
    command = [sys.executable, "-m", "miniclip_utils.train", *arguments, "--out", "run"]

    def listen() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background has inherited deafness to Ctrl-C

    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=listen)
    try:
        while not (tmp_path / "run/checkpoint.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "--resume --out run" in stderr.splitlines()[-1]
    assert load_run(tmp_path / "run").metrics is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_memory_is_kept_for_the_next_step():
    """Without it, each page of a new large block is filled with zeros at its first use: a page fault each."""
    program = """
import resource, sys, torch
from miniclip_utils.device import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.full((200 * 2**20,), 1, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

    def faults(how: str) -> int:
        result = subprocess.run([sys.executable, "-c", program, how], capture_output=True, text=True, check=True)
        return int(result.stdout)

    assert 10 * faults("keep") < faults("give back")
