"""The weights that come with the course do what their metrics say."""

import os

import pytest

from miniclip_utils import load_dataset, load_run, zero_shot_accuracy
from miniclip_utils.checkpoint import WEIGHTS_FOLDER, bundled_runs
from miniclip_utils.classroom.photos import SHEET, load_photos

ARCHIVE = os.environ.get("MINICLIP_TEST_ARCHIVE")


def test_they_are_there_and_small():
    assert bundled_runs() == ["cifar10", "shapes"]
    files = {"model.safetensors", "config.json", "log.jsonl", "metrics.json", "README.md"}
    for name in bundled_runs():
        assert {path.name for path in (WEIGHTS_FOLDER / name).iterdir()} == files
    assert sum(path.stat().st_size for path in WEIGHTS_FOLDER.rglob("*.*")) <= 12_000_000


@pytest.mark.parametrize("name", ["cifar10", "shapes"])
def test_they_say_how_they_were_made(name):
    metrics = load_run(name).metrics
    assert metrics["command"].startswith("python -m miniclip_utils.train --dataset ")
    assert metrics["versions"]["torch"] and metrics["device"] and metrics["seed"] == 0


@pytest.mark.parametrize("split, key, least", [("test", "top1", 0.97), ("held_out", "held_out_top1", 0.95)])
def test_shapes_reach_their_figures(split, key, least):
    run = load_run("shapes")
    accuracy = zero_shot_accuracy(run, load_dataset("shapes", split))
    assert accuracy >= least
    assert accuracy == pytest.approx(run.metrics[key], abs=0.002)


@pytest.mark.skipif(not ARCHIVE, reason="MINICLIP_TEST_ARCHIVE does not name an archive of CIFAR-10 as class folders")
def test_cifar10_reaches_its_figure():
    test = load_dataset(ARCHIVE, "test")
    assert len(test) == 10_000 and test.class_names[0] == "airplane" and test.labels.bincount().tolist() == [1_000] * 10
    run = load_run("cifar10")
    accuracy = zero_shot_accuracy(run, test)
    assert accuracy == pytest.approx(run.metrics["top1"], abs=0.002)


def test_the_photographs_are_twenty_of_each_class_and_the_model_knows_most():
    photos = load_photos()
    assert photos.images.shape == (200, 3, 32, 32) and photos.labels.bincount().tolist() == [20] * 10
    assert len(photos.images.flatten(1).unique(dim=0)) == 200
    assert SHEET.stat().st_size <= 600_000
    run = load_run("cifar10")
    assert photos.class_names == run.config.class_names
    assert zero_shot_accuracy(run, photos) == pytest.approx(run.metrics["top1"], abs=0.08)  # three standard errors of 200
