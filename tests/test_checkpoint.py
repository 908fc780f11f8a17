"""Runs on disk: what is saved comes back, what is damaged is named, and nothing is ever half written."""

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from miniclip_utils import checkpoint
from miniclip_utils.checkpoint import (
    RunConfig,
    load_checkpoint,
    load_run,
    new_run,
    save_checkpoint,
    save_model,
    write_config,
)
from miniclip_utils.errors import UserError
from miniclip_utils.files import write_file

from .conftest import TINY

VOCABULARY = ("a", "blue", "of", "photo", "red")


@pytest.fixture
def run(tmp_path):
    """An untrained run in `tmp_path`."""
    config = RunConfig("shapes", "tiny", 0, TINY, {"epochs": 1}, ("red", "blue"), ("a photo of {}",), VOCABULARY, 8)
    run = new_run(config)
    write_config(config, tmp_path)
    save_model(run.model, tmp_path)
    return run


def edit_config(folder, **changes):
    """Changes values of config.json, those of the model too."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name, value in changes.items():
        (config["model"] if name in config["model"] else config)[name] = value
    path.write_text(json.dumps(config))


def step(run, optimizers):
    """One step of training on noise."""
    loss = run.model(torch.randn(4, 3, 16, 16), run.tokenizer(["red", "blue", "a red", "a blue"]))[0].square().sum()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


# Whole files


def test_a_run_comes_back_bit_for_bit(run, tmp_path):
    loaded = load_run(tmp_path)
    assert loaded.config == run.config and loaded.metrics is None
    assert loaded.tokenizer.vocabulary == run.tokenizer.vocabulary
    assert not loaded.model.training
    for name, tensor in run.model.state_dict().items():
        assert tensor.equal(loaded.model.state_dict()[name]), name


def test_a_checkpoint_comes_back_bit_for_bit_and_goes_on_the_same(run, tmp_path):
    optimizers = [torch.optim.AdamW(run.model.parameters())]
    step(run, optimizers)
    save_checkpoint(run.model, optimizers, tmp_path, {"epoch": 3, "seconds": 0.1 + 0.2})
    again = new_run(run.config)
    again_optimizers = [torch.optim.AdamW(again.model.parameters())]
    assert load_checkpoint(again.model, again_optimizers, tmp_path) == {"epoch": 3, "seconds": 0.1 + 0.2}
    for one in (run, again):
        torch.manual_seed(5)
        step(one, optimizers if one is run else again_optimizers)
    for name, tensor in run.model.state_dict().items():
        assert tensor.equal(again.model.state_dict()[name]), name


def test_an_unfinished_run_is_loaded_from_its_checkpoint(run, tmp_path):
    (tmp_path / "model.safetensors").unlink()
    save_checkpoint(run.model, [], tmp_path, {"epoch": 1})
    assert load_run(tmp_path).model.logit_scale == run.model.logit_scale


def test_channels_last_weights_come_back(run, tmp_path):
    run.model.to(memory_format=torch.channels_last)
    save_model(run.model, tmp_path)
    for name, tensor in load_run(tmp_path).model.state_dict().items():
        assert tensor.equal(run.model.state_dict()[name]), name


# Damaged files


def test_truncated_weights_are_refused_at_any_length(run, tmp_path):
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="model.safetensors' is not a whole safetensors file"):
            load_run(tmp_path)


@pytest.mark.parametrize("content", [b"\0" * 100, bytes(range(256)) * 50, b"\xff" * 1000, b"version https://git-lfs\n"])
def test_what_is_no_safetensors_file_is_refused(run, tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        load_run(tmp_path)


class Bomb:
    """Unpickled, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("save", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))])
@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.safetensors"])
def test_a_pickle_in_disguise_is_never_unpickled(run, tmp_path, save, name):
    trace = tmp_path / "the bomb went off"
    (tmp_path / "model.safetensors").unlink()
    save(Bomb(trace), tmp_path / name)
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        load_run(tmp_path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists()  # so it would have gone off


def change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


def test_missing_weights_are_named(run, tmp_path):
    change_weights(tmp_path, lambda tensors: tensors.pop("text_projection.weight"))
    with pytest.raises(UserError, match="model.safetensors' lacks 'text_projection.weight': it is not whole"):
        load_run(tmp_path)


def test_extra_weights_are_named(run, tmp_path):
    change_weights(tmp_path, lambda tensors: tensors.update(more=torch.zeros(1)))
    with pytest.raises(UserError, match="model.safetensors' has 'more', which config.json does not know"):
        load_run(tmp_path)


def test_misshapen_weights_are_named_with_both_shapes(run, tmp_path):
    edit_config(tmp_path, embed_dim=24)
    with pytest.raises(
        UserError, match=r"has 'image_projection.weight' in shape \(16, 16\), and config.json wants \(24, 16\)"
    ):
        load_run(tmp_path)


def test_missing_weights_file_is_named(run, tmp_path):
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="there are no weights"):
        load_run(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "", "~nobody-of-this-name", "model.safetensors", "x" * 5000])
def test_what_is_no_run_is_refused(run, tmp_path, monkeypatch, name):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UserError, match="no run|not the folder of a run"):
        load_run(name)


def test_a_device_that_does_not_work_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="the device 'toaster' cannot be used here"):
        load_run(tmp_path, device="toaster")


def test_without_bundled_weights_a_run_still_loads(run, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "WEIGHTS_FOLDER", tmp_path / "gone")
    assert checkpoint.bundled_runs() == []
    assert load_run(tmp_path).config == run.config


def test_weights_that_may_not_be_read_are_not_called_missing(run, tmp_path, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(checkpoint, "open", refuse, raising=False)
    with pytest.raises(UserError, match="model.safetensors' is not .*Permission denied"):
        load_run(tmp_path)


def test_names_that_are_no_utf_8_come_back(run, tmp_path):
    config = replace(run.config, class_names=("große 🐈", os.fsdecode(b"caf\xe9")))
    write_config(config, tmp_path)
    assert load_run(tmp_path).config == config
    assert "große 🐈" in (tmp_path / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("progress", ["[1]", "3", "null", '"x"'])
def test_a_checkpoint_with_other_progress_is_refused(run, tmp_path, progress):
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in run.model.state_dict().items()}
    safetensors.torch.save_file(tensors, tmp_path / "checkpoint.safetensors", {"progress": progress})
    with pytest.raises(UserError, match="not how far their training was"):
        load_checkpoint(run.model, [torch.optim.AdamW(run.model.parameters())], tmp_path)


def test_a_checkpoint_without_progress_is_refused(run, tmp_path):
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in run.model.state_dict().items()}
    safetensors.torch.save_file(tensors, tmp_path / "checkpoint.safetensors")
    with pytest.raises(UserError, match="not how far their training was"):
        load_checkpoint(run.model, [torch.optim.AdamW(run.model.parameters())], tmp_path)


def test_a_checkpoint_without_the_state_of_an_optimizer_is_refused(run, tmp_path):
    save_checkpoint(run.model, [], tmp_path, {"epoch": 1})
    with pytest.raises(UserError, match="does not hold the optimizer's state"):
        load_checkpoint(run.model, [torch.optim.AdamW(run.model.parameters())], tmp_path)


# config.json


def test_missing_config_is_named(run, tmp_path):
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="there is no .*config.json.* is not the folder of a run"):
        load_run(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "not JSON", "\xff\xfe", "[" * 100_000, "9" * 5000], ids=range(6))
def test_config_that_is_no_json_is_named(run, tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="config.json' (cannot be read as JSON|must hold one JSON object)"):
        load_run(tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", '"text"', "1"])
def test_config_that_is_no_object_is_named(run, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="must hold one JSON object"):
        load_run(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"model": {}}', '{"model": []}', '{"model": null}', '{"model": {"width": 3}}'])
def test_config_with_other_fields_is_refused(run, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="is not the config of a run"):
        load_run(tmp_path)


HOSTILE = [None, -1, 0, 10**30, 2.5, math.nan, "x", "", [], [0], [None], [["a"]], {}, True]


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize(
    "field",
    ["embed_dim", "image_tower", "resnet_widths", "resnet_blocks", "text_width", "text_layers", "text_num_heads"]
    + ["text_eos", "class_names", "templates", "vocabulary", "context_length", "recipe", "model"],
)
def test_hostile_values_load_or_are_refused_in_a_sentence(run, tmp_path, field):
    original = (tmp_path / "config.json").read_text()
    refused = 0
    for value in HOSTILE:
        (tmp_path / "config.json").write_text(original)
        edit_config(tmp_path, **{field: value})
        try:
            load_run(tmp_path)
        except UserError as error:
            refused += 1
            assert "config.json" in str(error)
    assert refused >= 10


# Saving


def fail(*_, **__):
    raise OSError(28, "No space left on device")


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_save_that_fails_keeps_the_previous_file_and_leaves_no_litter(run, tmp_path, monkeypatch, call):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(UserError, match="cannot write .*model.safetensors.*No space left.*file that was there is kept"):
        save_model(new_run(run.config).model, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_ctrl_c_during_a_save_keeps_the_previous_file_and_leaves_no_litter(run, tmp_path, monkeypatch, call):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(os, call, interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_model(new_run(run.config).model, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_size_limit_hit_midway_keeps_the_previous_file(tmp_path):
    """The kernel itself refuses to write on, as it does on a full disk."""
    script = """
import resource, signal, sys
from pathlib import Path
from miniclip_utils.files import write_file
path = Path(sys.argv[1])
write_file(path, b"old" * 1000)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_file(path, b"new" * 100_000)
except ValueError as error:
    print(error)
"""
    path = tmp_path / "file"
    answer = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert "cannot write" in answer.stdout, answer.stderr
    assert path.read_bytes() == b"old" * 1000 and list(tmp_path.iterdir()) == [path]


def test_a_save_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*Not a directory"):
        write_file(tmp_path / "file" / "config.json", b"{}")


def test_a_save_onto_a_folder_is_refused(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match="cannot write .*Is a directory"):
        write_file(tmp_path / "config.json", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_folder_that_may_not_be_written_is_said(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(os, "unlink", refuse)  # on a read-only disk even this fails
    with pytest.raises(UserError, match="cannot write .*Permission denied"):
        write_file(tmp_path / "file", b"")


def test_kill_9_at_any_time_leaves_a_checkpoint_that_loads(run, tmp_path):
    script = """
import os, sys
from pathlib import Path
from miniclip_utils.checkpoint import load_run, save_checkpoint
folder = Path(sys.argv[1])
model = load_run(folder).model
save_checkpoint(model, [], folder, {"epoch": 0})
print("ready", flush=True)
while sys.stdin.readline():
    child = os.fork()
    if child == 0:
        epoch = 0
        while True:
            epoch += 1
            save_checkpoint(model, [], folder, {"epoch": epoch})
    print(child, flush=True)
    os.waitpid(child, 0)
    print("killed", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    (tmp_path / "model.safetensors").unlink()
    for round in range(15):
        process.stdin.write("save\n")
        process.stdin.flush()
        child = int(process.stdout.readline())
        time.sleep(0.02 + 0.005 * round)
        os.kill(child, signal.SIGKILL)
        assert process.stdout.readline() == "killed\n"
        progress = load_checkpoint(run.model, [], tmp_path)
        assert progress["epoch"] >= 0
        assert load_run(tmp_path).config == run.config
    process.stdin.close()
    assert process.wait() == 0


# Starting from another run


def test_a_start_gives_all_but_what_only_the_new_captions_have(run):
    """New words keep their own vectors, known words get theirs wherever they stand; so do the positions that both have."""
    start = new_run(run.config)
    words = ("a", "cat", "of", "red", "zebra")
    mine = new_run(replace(run.config, vocabulary=words, context_length=10))
    fresh = {name: tensor.clone() for name, tensor in mine.model.state_dict().items()}
    checkpoint.start_from(mine, start)
    given, got = start.model.state_dict(), mine.model.state_dict()
    vectors, positions = "text_encoder.token_embedding.weight", "text_encoder.positional_embedding"
    for name, tensor in got.items():
        if name not in (vectors, positions):
            assert torch.equal(tensor, given[name]), name
    assert torch.equal(got[vectors][:4], given[vectors][:4])  # the special tokens
    for row, word in enumerate(words, start=4):
        known = 4 + VOCABULARY.index(word) if word in VOCABULARY else None
        assert torch.equal(got[vectors][row], fresh[vectors][row] if known is None else given[vectors][known]), word
    assert torch.equal(got[positions][:8], given[positions]) and torch.equal(got[positions][8:], fresh[positions][8:])
    before = {name: tensor.clone() for name, tensor in given.items()}
    mine.model.image_projection.weight.data.zero_()  # copies, not the start's own
    assert all(torch.equal(tensor, before[name]) for name, tensor in start.model.state_dict().items())


def test_a_start_may_have_longer_captions(run):
    start, mine = new_run(run.config), new_run(replace(run.config, vocabulary=("cat",), context_length=5))
    checkpoint.start_from(mine, start)
    positions = "text_encoder.positional_embedding"
    assert torch.equal(mine.model.state_dict()[positions], start.model.state_dict()[positions][:5])


def test_a_start_of_another_architecture_is_refused(run):
    other = new_run(replace(run.config, model=replace(TINY, embed_dim=8)))
    with pytest.raises(UserError, match="another architecture"):
        checkpoint.start_from(run, other)


def test_a_config_from_before_there_were_starts_is_read(run, tmp_path):
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("start") is None
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_run(tmp_path).config == run.config
    edit_config(tmp_path, start=3)
    with pytest.raises(UserError, match="'start' cannot be 3"):
        load_run(tmp_path)
