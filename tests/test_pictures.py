"""The drawn photographs of lesson 14, its training on few of them, and its log."""

from collections import Counter

import numpy as np
import pytest
import torch

from miniclip_utils import ImageTextDataset, load_dataset, load_run
from miniclip_utils.classroom import pictures
from miniclip_utils.classroom.pictures import PARTS, take_photo
from miniclip_utils.data import BatchLoader


def test_a_scene_fixes_the_drawing_and_a_shot_changes_it_a_little():
    def pixels(scene, shot):
        return np.asarray(take_photo("boat", scene, shot)).astype(int)

    assert (pixels(3, 1) == pixels(3, 1)).all()
    assert 0 < abs(pixels(3, 1) - pixels(3, 2)).mean() < abs(pixels(3, 1) - pixels(4, 1)).mean()


def test_a_folder_has_other_scenes_to_test_and_with_each_seed_others_to_train(tmp_path):
    for seed in (0, 1):
        pictures.draw_folder(tmp_path / str(seed), seed)
    train = [load_dataset(tmp_path / str(seed), split="train") for seed in (0, 1)]
    test = [load_dataset(tmp_path / str(seed), split="test") for seed in (0, 1)]
    assert train[0].class_names == tuple(sorted(PARTS)) and train[0].labels.bincount().tolist() == [65] * 4
    assert torch.equal(test[0].images, test[1].images) and test[0].labels.bincount().tolist() == [100] * 4
    everything = torch.cat([train[0].images, train[1].images, test[0].images]).flatten(1)
    assert len(everything.unique(dim=0)) == len(everything)


def test_a_split_by_scene_cuts_no_scene():
    scenes = torch.tensor([5, 2, 9, 2, 5, 7])
    assert pictures.split_by_scene(scenes, 0.5).tolist() == [False, False, True, False, False, True]
    assert pictures.split_by_scene(scenes, 0.25).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("warm", [False, True])
def test_all_sizes_train_with_as_many_steps_on_the_same_labels(warm, monkeypatch):
    seen: list[list[int]] = []

    def batches(loader):
        for images, labels in real(loader):
            seen[-1] += labels.tolist()
            yield images, labels

    real = BatchLoader.__iter__
    monkeypatch.setattr(BatchLoader, "__iter__", batches)
    course = load_run("shapes")
    images = torch.randint(256, (3 * 5, 3, 32, 32), dtype=torch.uint8)
    for k in (1, 5):
        seen.append([])
        few = ImageTextDataset(images[: 3 * k], torch.arange(3).repeat(k), ("boat", "cup", "tree"))
        run = pictures.train_on(few, course, warm, steps=12)
        assert run.model.config == course.model.config and run.config.class_names == few.class_names
    assert seen[0] == seen[1] and len(seen[0]) == 12 * 32


def test_the_log_holds_at_least_three_seeds_of_each_point():
    rows = pictures.rows()
    counts = Counter((row["of_each"], row["steps"], row["start"]) for row in rows)
    assert {(k, 120, start) for k in pictures.SIZES for start in pictures.STARTS} <= set(counts)
    assert min(counts.values()) >= 3
    assert len({(row["of_each"], row["steps"], row["start"], row["seed"]) for row in rows}) == len(rows)
