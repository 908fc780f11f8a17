"""The ladder of the lessons: its rungs, its log, and its training at a size for a second."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from miniclip_utils.classroom import ladder
from miniclip_utils.losses import multi_positive_loss


@pytest.fixture(autouse=True)
def few_drawings(monkeypatch):
    """The first batches of the drawings, and a hundred that were never trained."""
    real = ladder.shapes()
    few = {
        name: replace(real[name], images=real[name].images[:n], labels=real[name].labels[:n]) for name, n in SIZES.items()
    }
    monkeypatch.setattr(ladder, "shapes", lambda: few)


SIZES = {"train": 2 * ladder.BATCH_SIZE, "held_out": 100}


@pytest.mark.parametrize("name", ladder.RUNGS)
def test_a_rung_trains_and_the_same_seed_gives_the_same(name):
    one, other = (ladder.climb(ladder.RUNGS[name], seed=1) for _ in range(2))
    assert one == other and 0 <= one < 0.5


def test_a_rung_uses_the_parts_that_it_is_given():
    calls = []

    def loss(*arguments):
        calls.append([tuple(argument.shape) for argument in arguments])
        return multi_positive_loss(*arguments)

    ladder.climb(replace(ladder.TEMPERATURE, loss=loss))
    size = ladder.BATCH_SIZE
    assert calls == 2 * [[(size, 128), (size, 128), (), (size,)]]


@pytest.mark.parametrize("scale", [1.0, 1 / 0.07])
@pytest.mark.parametrize("learned", [False, True])
def test_a_learned_scale_learns_and_a_fixed_one_stays(scale, learned):
    model = ladder.CLIP(ladder.ConvNet(), ladder.BagOfWords(10), scale, learned)
    assert model.logit_scale.exp().item() == pytest.approx(scale)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    ladder.train(model, [(images, labels)] * 2, labels.view(8, 1, 1) + 1, ladder.diagonal_loss)
    assert (model.logit_scale.exp().item() == pytest.approx(scale, abs=1e-6)) == (not learned)


def test_a_bag_of_words_reads_no_padding_and_no_order():
    bag = ladder.BagOfWords(10)
    short, padded, turned = torch.tensor([[4, 5, 0, 0]]), torch.tensor([[4, 5, 0, 0, 0, 0]]), torch.tensor([[5, 4, 0, 0]])
    assert torch.equal(bag(short), bag(padded)) and torch.allclose(bag(short), bag(turned))
    assert torch.allclose(bag(short)[0], bag.weight[[4, 5]].mean(dim=0))


def test_the_log_holds_at_least_five_seeds_of_each_rung():
    rows = [json.loads(line) for line in ladder.LOG.read_text().splitlines()]
    counts = Counter(row["rung"] for row in rows)
    assert list(counts) == list(ladder.RUNGS) and min(counts.values()) >= 5
    assert len({(row["rung"], row["seed"]) for row in rows}) == len(rows)
