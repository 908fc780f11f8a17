"""The export to ONNX, read back by ONNX Runtime as a program without PyTorch would."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from miniclip_utils import export
from miniclip_utils.checkpoint import RunConfig, load_run, new_run, save_model, write_config
from miniclip_utils.cli import run_command
from miniclip_utils.errors import UserError
from miniclip_utils.evaluate import class_features, encode_images
from miniclip_utils.model import MiniCLIP
from miniclip_utils.openai import CONFIGS, CONTEXT_LENGTH, VOCAB_SIZE

from .conftest import TINY

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
pytest.importorskip("onnxscript", reason="the extra `export` is not installed")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def own_run(tmp_path_factory):
    """The folder of a run of somebody's own, whose BatchNorm has statistics that are not the ones it starts with."""
    torch.manual_seed(0)
    words = ("a", "blue", "of", "photo", "red", "é")
    run = new_run(RunConfig("mine", "tiny", 0, TINY, {}, ("red", "blue"), ("a photo of a {}", "{}"), words, 7))
    for module in run.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    folder = tmp_path_factory.mktemp("run")
    write_config(run.config, folder)
    save_model(run.model, folder)
    return folder


@pytest.fixture
def command(monkeypatch, capsys):
    """Calls the command line within this process. Gives exit code, stdout and stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
        monkeypatch.setattr("warnings.showwarning", None)
        code = 0
        try:
            run_command(export.main)
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return call


def features_of(file: Path, inputs: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0])


def tokens_of(description: dict, sentence: str) -> torch.Tensor:
    """What somebody writes who has `clip.json` and nothing else of the course."""
    words = description["words"]
    split = re.findall(r"\w+|[^\w\s]", sentence.lower())
    numbers = [words.index(word if word in words else "[UNK]") for word in ["[SOS]", *split, "[EOS]"]]
    return torch.tensor([numbers + [words.index("[PAD]")] * (description["context_length"] - len(numbers))])


@pytest.mark.parametrize("name", ["own", "shapes-vit"])  # `shapes` and `cifar10` are exported for tests/test_live.py
def test_an_exported_run_answers_as_the_run_does(name, own_run, command, tmp_path):
    source = own_run if name == "own" else name
    code, out, err = command("--run", source, "--out", tmp_path / "new" / "out")
    files = [tmp_path / "new" / "out" / file for file in ("image.onnx", "text.onnx", "clip.json")]
    assert (code, err) == (0, "") and all(str(file) in out for file in files)
    assert sorted(files) == sorted((tmp_path / "new" / "out").iterdir())

    run, description = load_run(source), json.loads(files[2].read_text())
    size = description["image_size"]
    for file, *inputs in ((files[0], "uint8", 3, size, size), (files[1], "int64", description["context_length"])):
        (taken,), (given,) = (getattr(onnxruntime.InferenceSession(file), f"get_{side}")() for side in ("inputs", "outputs"))
        assert [taken.type, *taken.shape] == [f"tensor({inputs[0]})", "batch", *inputs[1:]]
        assert given.shape == ["batch", run.config.model.embed_dim]
    for n in (1, 2, 7):
        images = torch.randint(256, (n, 3, size, size), dtype=torch.uint8)
        torch.testing.assert_close(features_of(files[0], images), encode_images(run.model, images), rtol=0, atol=1e-5)
    for sentence in ("a photo of a red", "A  RED, thing", "", "é red"):
        theirs = features_of(files[1], tokens_of(description, sentence))
        ours = class_features(run.model, run.tokenizer, [sentence], ["{}"])
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
    assert description["scale"] == pytest.approx(run.model.logit_scale.exp().item())
    assert tuple(description["class_names"]) == run.config.class_names
    assert tuple(description["templates"]) == run.config.templates
    for file in files:
        for place in (ROOT, Path(torch.__file__).parent):
            assert str(place).encode() not in file.read_bytes(), "it says where this machine keeps its code"


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory):
    """(a model like ViT-B/32, thinner and with two blocks in each tower, the folder of its export)"""
    pytest.importorskip("open_clip")
    torch.manual_seed(0)
    thin = dict(embed_dim=32, vit_width=64, vit_num_heads=2, vit_layers=2, text_width=64, text_num_heads=2, text_layers=2)
    model = MiniCLIP(replace(CONFIGS["ViT-B/32"], **thin), VOCAB_SIZE, CONTEXT_LENGTH).eval()
    folder = tmp_path_factory.mktemp("clip")
    assert max(export.export_clip(model, folder).values()) < 1e-5
    return model, folder


def test_openai_s_clip_is_exported_too(small_clip):
    import open_clip

    model, folder = small_clip
    images = torch.randint(256, (3, 3, 224, 224), dtype=torch.uint8)
    torch.testing.assert_close(features_of(folder / "image.onnx", images), encode_images(model, images), rtol=0, atol=1e-5)
    tokens = open_clip.get_tokenizer("ViT-B-32")(["a photo of a cat.", "", "so many words " * 40])
    ours = nn.functional.normalize(model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(features_of(folder / "text.onnx", tokens), ours, rtol=0, atol=1e-5)


def test_its_byte_pairs_are_all_that_a_tokenizer_needs(small_clip):
    import open_clip

    description = json.loads((small_clip[1] / "clip.json").read_text())
    number = {word: index for index, word in enumerate(description["words"])}
    rank = {tuple(pair): index for index, pair in enumerate(description["merges"])}
    sentence = "a photo of an axolotl , hyperventilating"
    numbers = [number["<start_of_text>"]]
    for word in sentence.split():
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            best = min(range(len(parts) - 1), key=lambda k: rank.get((parts[k], parts[k + 1]), len(rank)))
            if (parts[best], parts[best + 1]) not in rank:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        numbers += [number[part] for part in parts]
    numbers.append(number["<end_of_text>"])
    theirs = open_clip.get_tokenizer("ViT-B-32")(sentence)[0].tolist()
    assert theirs == numbers + [0] * (description["context_length"] - len(numbers))


@pytest.mark.parametrize("tower", ["image.onnx", "text.onnx"])
def test_an_export_that_answers_otherwise_is_refused(own_run, tower, tmp_path, monkeypatch):
    """As if the exporter had lost a little on the way, in one tower."""
    run, faithful = load_run(own_run), export.to_onnx

    def careless(module, example):
        is_image = isinstance(module, export.ImageTower)
        if is_image != (tower == "image.onnx"):
            return faithful(module, example)
        weight = (run.model.image_projection if is_image else run.model.text_projection).weight
        with torch.no_grad():
            before = weight.clone()
            weight += 1e-3 * torch.randn_like(weight)
            content = faithful(module, example)
            weight.copy_(before)
        return content

    monkeypatch.setattr(export, "to_onnx", careless)
    with pytest.raises(UserError, match=f"'{tower}' is not the model: its features differ by up to .*e-0"):
        export.export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_has_diverged_is_refused(own_run, tmp_path):
    run = load_run(own_run)
    with torch.no_grad():
        run.model.image_projection.weight[0, 0] = torch.nan
    with pytest.raises(UserError, match="differ by up to nan"):
        export.export_run(run, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(own_run, command, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    code, out, err = command("--run", own_run, "--out", tmp_path)
    assert (code, out) == (2, "") and "needs onnxscript: run 'python -m pip install onnx onnxruntime onnxscript'" in err


def test_what_a_user_gets_wrong_is_one_sentence(own_run, command, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "to_onnx", lambda tower, example: b"")
    monkeypatch.setattr(export, "largest_difference", lambda tower, content, inputs: 0.0)
    (tmp_path / "file").touch()
    for arguments, message in {
        ("--run", "gone", "--out", tmp_path / "x"): "there is no run 'gone'",
        ("--run", "ViT-B/32", "--weights", "gone", "--out", tmp_path / "x"): "there is no file 'gone'",
        ("--run", "shapes", "--weights", "gone", "--out", tmp_path / "x"): "--weights goes with one of ViT-B/32",
        ("--run", own_run, "--out", tmp_path / "file"): "cannot be a folder",
    }.items():
        code, out, err = command(*arguments)
        assert (code, out) == (2, "") and err.startswith("error: ") and message in err and err.count("\n") == 1
