"""The widgets of the lessons, moved by code as a reader moves them by hand."""

import time

import pytest
import torch

from miniclip_utils import ImageTextDataset
from miniclip_utils.checkpoint import RunConfig, new_run
from miniclip_utils.prompts import fill
from miniclip_utils.tokenizer import WordTokenizer

from .conftest import TINY

widgets = pytest.importorskip("miniclip_utils.classroom.widgets")


def test_temperature_sharpens_the_softmax():
    scale, page = widgets.temperature_matrix(torch.eye(3)).children
    scale.value = 1
    assert "58%" in page.value and "<i>T</i><sub>3</sub>" in page.value  # e / (e + 2)
    started = time.perf_counter()
    scale.value = 100
    assert time.perf_counter() - started < 0.3
    assert "100%" in page.value and "58%" not in page.value
    assert "Loss 0.000" in page.value


def test_batch_explorer_counts_the_true_pairs():
    names = ("small red circle", "large red circle", "large blue circle")
    dataset = ImageTextDataset(torch.zeros(30, 3, 8, 8, dtype=torch.uint8), torch.arange(30) % 3, names)
    says, size, number, page = widgets.batch_explorer(dataset).children
    started = time.perf_counter()
    size.value = 12
    assert time.perf_counter() - started < 0.3
    in_full = page.value.count("a true pair as well")
    assert f"{in_full} of 132 cells" in page.value
    says.value = 2
    assert page.value.count("a true pair as well") > in_full
    says.value = 1
    assert "132 of 132 cells" in page.value and f"Best diagonal accuracy: {1 / 12:.0%}" in page.value
    before = page.value
    says.value = 3
    number.value = 1
    assert page.value != before


def test_names_of_a_readers_own_folders_are_shown_and_not_run():
    name = '<img src=x onerror="alert(1)">'
    dataset = ImageTextDataset(torch.zeros(30, 3, 8, 8, dtype=torch.uint8), torch.zeros(30, dtype=torch.long), (name,))
    explorer = widgets.batch_explorer(dataset).children[-1]
    matrix = widgets.checkpoint_box({0: torch.eye(2)}, [name, "b"]).children[-1]
    for page in (explorer, matrix):
        assert "<img src=x" not in page.value and "&lt;img" in page.value


def test_prompt_box_ranks_and_says_what_it_cannot_read():
    captions = fill("a photo of a {}.", ("red", "blue"))
    tokenizer = WordTokenizer.from_captions(captions)
    names, words = ("red", "blue"), (tokenizer.vocabulary, tokenizer.context_length)
    run = new_run(RunConfig("colors", "tiny", 0, TINY, {}, names, ("a photo of a {}.",), *words))
    images = torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8)
    box, page = widgets.prompt_box(run, images, "a photo of a red.", top=3).children
    assert page.value.count("<img") == 3
    before = page.value
    started = time.perf_counter()
    box.value = "blue"
    assert time.perf_counter() - started < 0.3
    assert page.value != before
    box.value = "blue <giraffe>"
    assert "giraffe" in page.value and "<giraffe>" not in page.value and page.value.count("<img") == 3
    box.value = "giraffe"
    assert "knows none of the words" in page.value
    box.value = "blue " * 50
    assert "shorten it" in page.value


def test_checkpoint_box_shows_the_matrix_of_the_step():
    number, page = widgets.checkpoint_box({0: torch.zeros(3, 3), 40: torch.eye(3)}, ["a", "b", "c"]).children
    assert "1 of 3 pictures" in page.value
    number.value = 1
    assert "Step 40: 3 of 3 pictures" in page.value and "1.00" in page.value
