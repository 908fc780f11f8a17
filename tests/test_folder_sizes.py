"""The measurement of small folders: its folders, one row of it, and the README's table against its log."""

import io
import json
import re
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
from PIL import Image

from miniclip_utils import loop
from tools import folder_sizes

ROOT = Path(__file__).parent.parent


@pytest.fixture
def pictures():
    """Forty pictures of each class to train with, no two alike, and four to test."""
    numbers, found = np.random.default_rng(0), {}
    for split, count in (("train", 40), ("test", 4)):
        for name in folder_sizes.CLASSES:
            found[split, name] = []
            for _ in range(count):
                file = io.BytesIO()
                Image.fromarray(numbers.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(file, "JPEG")
                found[split, name].append(file.getvalue())
    return found


def test_the_folders_hold_as_many_as_they_should_and_other_ones_for_each_seed(tmp_path, pictures):
    seen: list[bytes] = []
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder_sizes.write_folder(pictures, 29, seed, folder)
        assert sorted(len(list(each.iterdir())) for each in (folder / "train").iterdir()) == [9, 10, 10]
        for name in folder_sizes.CLASSES:
            contents = [file.read_bytes() for file in (folder / "train" / name).iterdir()]
            assert set(contents) <= set(pictures["train", name])
            seen += contents
            assert sorted(file.read_bytes() for file in (folder / "test" / name).iterdir()) == sorted(pictures["test", name])
    assert len(seen) == len(set(seen)) == 3 * 29
    with pytest.raises(ValueError, match="too few pictures for 90"):
        folder_sizes.write_folder(pictures, 90, 0, tmp_path / "large")


def test_the_files_are_found_below_their_splits(tmp_path, pictures):
    folder_sizes.write_folder(pictures, 30, 0, tmp_path / "all/photos")
    (tmp_path / "all/photos/train/frog").mkdir()
    (tmp_path / "all/photos/train/frog/0.jpg").write_bytes(b"frog")
    found = folder_sizes.read_pictures(tmp_path / "all")
    assert {key: len(files) for key, files in found.items()} == {
        (split, name): count for split, count in (("train", 10), ("test", 4)) for name in folder_sizes.CLASSES
    }


def test_a_row_is_a_run_of_the_command_with_its_defaults(pictures, monkeypatch):
    monkeypatch.setattr(loop, "MOST_EPOCHS", 3)
    row = folder_sizes.measure(pictures, 30, seed=1, start=None)
    assert (row["pictures"], row["seed"], row["start"], row["preset"], row["test_images"]) == (30, 1, None, "small", 12)
    assert (row["epochs"], row["batch_size"], row["steps"]) == (3, 32, 3) and 0 <= row["top1"] <= 1
    assert {"seconds", "cpu_seconds", "threads", "torch"} <= row.keys()


def test_the_readme_has_the_means_of_the_log():
    rows = [json.loads(line) for line in folder_sizes.LOG.read_text().splitlines()]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| ([\d,]+) pictures \| (.+?) \| (.+?) \|$", readme, re.M)
    assert [int(size.replace(",", "")) for size, *_ in table] == list(folder_sizes.SIZES)
    for size, *cells in table:
        for cell, start in zip(cells, (None, "seven_classes"), strict=True):
            own = [row for row in rows if row["pictures"] == int(size.replace(",", "")) and row["start"] == start]
            if cell == "–":
                assert not own
                continue
            tops = [100 * row["top1"] for row in own]
            spread = f" ± {stdev(tops):.1f}" if len(tops) > 1 else ""
            seconds = mean(row["cpu_seconds"] for row in own)
            seeds = "" if len(own) == 3 else f" ({len(own)} seed{'s' if len(own) > 1 else ''})"
            assert cell == f"{mean(tops):.1f}%{spread} in {seconds:.0f} s{seeds}"
