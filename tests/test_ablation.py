"""The variants of the photo recipe, at a size for a second, on noise that is red, green or blue."""

import json
import math
import sys

import pytest
import torch

from miniclip_utils import loop
from miniclip_utils.data import ImageTextDataset
from miniclip_utils.errors import UserError
from miniclip_utils.fit import fit, new_config
from miniclip_utils.image_encoder import ResNet
from miniclip_utils.model import PRESETS, MiniCLIP
from tools import ablation

from .conftest import TINY

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def recipe(monkeypatch):
    monkeypatch.setitem(PRESETS, "medium", TINY)
    monkeypatch.setitem(loop.RECIPES, "medium", loop.Recipe(epochs=3, batch_size=16, label_smoothing=0.1, shift=1))
    for name, number in {"TRAINED": 20, "VALIDATED": 15, "BATCH_SIZE": 16}.items():
        monkeypatch.setattr(ablation, name, number)
    return loop.RECIPES["medium"]


@pytest.fixture
def splits():
    return {"train": pictures(192), "validation": pictures(60)}


def pictures(number: int) -> ImageTextDataset:
    labels = torch.arange(number) % 3
    images = torch.randint(120, (number, 3, 16, 16), dtype=torch.uint8)
    images[torch.arange(number), labels] += 60
    return ImageTextDataset(images, labels, ("red", "green", "blue"))


def test_without_changes_it_is_the_training_of_the_package(splits, recipe, tmp_path):
    ours, _ = ablation.train({"resnet_widths": TINY.resnet_widths}, splits["train"], recipe.epochs, seed=1)
    config = new_config("", "medium", 1, recipe, splits["train"])
    theirs = fit(config, {**splits, "test": splits["validation"]}, tmp_path, CPU, resuming=False)
    for one, other in zip(ours.model.state_dict().values(), theirs.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["record", "supervised"])
def test_a_variant_learns_and_its_row_says_how_well(name, splits):
    row = ablation.measure(name, splits, epochs=4, seed=0)
    top1 = row["validation_top1"]
    assert row["widths"] == (4, 8)
    assert top1 > 0.8 and row["standard_error"] == pytest.approx(math.sqrt(top1 * (1 - top1) / 60), abs=1e-4)
    assert 0 < row["loss_above_floor"] < math.log(3)


def test_the_log_keeps_its_rows_and_gets_those_it_lacks(color_folder, tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"

    def command(*arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["ablation", str(color_folder), str(log), "--epochs", "1", *arguments])
        ablation.main()
        return log.read_text().splitlines()

    (base,) = command("base")
    lines = command("base", "gelu")
    assert lines[0] == base and [json.loads(line)["name"] for line in lines] == ["base", "gelu"]
    assert [json.loads(line)["seed"] for line in command("base", "--seed", "1")] == [0, 0, 1]
    with pytest.raises(UserError, match="no variant 'glu'"):
        command("glu")


def test_activation_and_pooling():
    resnet, images = ResNet(16, (8, 16), (1, 1)).eval(), torch.randn(2, 3, 16, 16)
    feature_map = resnet.stages(resnet.stem(images).relu())
    torch.testing.assert_close(ablation.Tower(resnet, {"max_pooling": True})(images), feature_map.amax(dim=(2, 3)))
    assert resnet(images).min() >= 0 > ablation.Tower(resnet, {"gelu": True})(images).min()  # GELU goes below zero


def test_each_parameter_has_one_optimizer_and_the_biases_their_own(recipe):
    model = MiniCLIP(TINY, vocab_size=20, context_length=6)
    model.image_encoder = ablation.Tower(model.image_encoder, ablation.RECORD)
    optimizers = ablation.changed_optimizers(model, recipe, ablation.RECORD)
    owned = [parameter for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]]
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(owned) == len(set(owned)) == len(trained) and set(owned) == set(trained.values())
    apart = {parameter: name for name, parameter in trained.items() if "norm" in name and "image" in name}
    assert {apart[parameter].rpartition(".")[2] for parameter in optimizers[-1].param_groups[0]["params"]} == {"bias"}
    assert len(apart) == len(optimizers[-1].param_groups[0]["params"]) == 4  # two of each block, and no gain


def test_training_and_validation_pictures_differ():
    photos = pictures(40)
    photos.labels.copy_(torch.arange(40))
    parts = ablation.few(photos)
    assert {split: len(part) for split, part in parts.items()} == {"train": 20, "validation": 15}
    assert len({*parts["train"].labels.tolist(), *parts["validation"].labels.tolist()}) == 35


def test_rates_rise_and_fall_in_straight_lines(splits, monkeypatch):
    factors = [ablation.straight_fall(step, 10, 4) for step in range(10)]
    assert factors == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    steps = []
    monkeypatch.setattr(ablation, "straight_fall", lambda *schedule: steps.append(schedule) or 0.0)
    ablation.train({}, splits["train"], 1, seed=0)
    assert steps == []
    ablation.train({"straight": True}, splits["train"], 1, seed=0)
    assert steps == [(step, 12, 1) for step in range(12)]
