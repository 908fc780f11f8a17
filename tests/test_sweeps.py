"""The experiments over seeds: what they vary, at a size for a second; their log, its plot, and how it is written."""

import json
from collections import Counter

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F

from miniclip_utils import shapes
from miniclip_utils.classroom import over_seeds, sweeps
from miniclip_utils.losses import clip_loss
from tools.sweeps import measure

CLASSES = torch.arange(128)
WORDS = [name.split() for name in shapes.CLASS_NAMES]


@pytest.fixture
def few_drawings(monkeypatch):
    """Two batches to train with, and thirty drawings for each measurement."""

    def forget():
        sweeps.drawings.cache_clear()
        sweeps._row.cache_clear()

    few = {"train": 64, "validation": 30, "seen": 30, "never_seen": 30}
    forget()
    monkeypatch.setattr(sweeps, "DRAWINGS", few)
    yield few
    forget()


@pytest.mark.parametrize("eighths", range(9))
def test_each_colour_and_each_shape_is_held_out_equally_often(eighths):
    held_out = sweeps.is_held_out(CLASSES, eighths / 8).tolist()
    pairs = {(color, shape) for (_, color, shape), out in zip(WORDS, held_out, strict=True) if out}
    assert len(pairs) == 8 * eighths and sum(held_out) == 16 * eighths  # of both sizes
    for column in zip(*pairs, strict=True):
        assert set(Counter(column).values()) == {eighths}


def test_what_a_smaller_fraction_holds_out_a_greater_one_does_too():
    held_out = [set(CLASSES[sweeps.is_held_out(CLASSES, eighths / 8)].tolist()) for eighths in range(9)]
    assert all(small < great for small, great in zip(held_out, held_out[1:], strict=False))
    assert held_out[2] == set(CLASSES[shapes.is_held_out(CLASSES)].tolist())


def test_two_shapes_of_each_colour_still_join_all_colours():
    """At three quarters: from any pair to any other by steps that change only the colour or only the shape."""
    pairs = {
        (color, shape) for label, (_, color, shape) in enumerate(WORDS) if not sweeps.is_held_out(CLASSES, 3 / 4)[label]
    }
    reached = {next(iter(pairs))}
    for _ in pairs:
        reached |= {pair for pair in pairs for other in reached if pair[0] == other[0] or pair[1] == other[1]}
    assert len(pairs) == 16 and reached == pairs


def test_drawings_are_of_the_combinations_that_they_say(few_drawings):
    splits = sweeps.drawings(3 / 4)
    assert {name: len(split) for name, split in splits.items()} == few_drawings
    for name, split in splits.items():
        out = sweeps.is_held_out(split.labels, 3 / 4)
        assert out.all() if name == "never_seen" else not out.any()
    assert not torch.equal(splits["seen"].images, splits["validation"].images)


@pytest.mark.parametrize("group_size", [2, 4, 8])
def test_a_loss_in_groups_compares_no_pair_with_another_group(group_size):
    """Against the whole matrix, whose cells between groups are set to −∞."""
    images, texts = F.normalize(torch.randn(2, 8, 5, dtype=torch.float64), dim=-1)
    scale = torch.tensor(7.0, dtype=torch.float64)
    group = torch.arange(8) // group_size
    logits = (scale * images @ texts.T).masked_fill(group[:, None] != group, -torch.inf)
    wanted = -(logits.log_softmax(dim=1).diagonal() + logits.log_softmax(dim=0).diagonal()).mean() / 2
    got = sweeps.grouped_loss(images, texts, scale, torch.arange(8), group_size)
    torch.testing.assert_close(got, wanted)
    if group_size == 8:
        torch.testing.assert_close(got, clip_loss(images, texts, scale))


def test_in_a_group_of_equal_captions_each_text_is_right():
    images, texts = F.normalize(torch.randn(2, 6, 5), dim=-1)
    labels = torch.tensor([3, 3, 9, 9, 1, 1])
    got = sweeps.grouped_loss(images, texts, torch.tensor(1e-4), labels, group_size=2)
    assert got.item() == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-3)  # both of two: half and half


def test_training_in_one_group_is_the_training_of_the_course(few_drawings, monkeypatch):
    wanted = sweeps.negatives(32)
    sweeps._row.cache_clear()
    monkeypatch.setattr(sweeps, "train_epoch", lambda *parts, epoch: sweeps.train_in_groups(*parts, group_size=32))
    got = sweeps.negatives(32)
    assert got["gap"] == pytest.approx(wanted["gap"], abs=2e-3)
    assert got["cosine"] == pytest.approx(wanted["cosine"], abs=2e-3)
    assert got["logit_scale"] == pytest.approx(wanted["logit_scale"], abs=2e-3)


@pytest.mark.parametrize("name, point", [("composition", 3 / 4), ("batch", 16), ("negatives", 4), ("gap", 50.0)])
def test_an_experiment_runs_and_the_same_seed_gives_the_same(few_drawings, name, point):
    run = sweeps.SWEEPS[name].run
    row = run(point, seed=1)
    sweeps._row.cache_clear()
    again = run(point, seed=1)
    assert row["point"] == point and {k: v for k, v in row.items() if k != "seconds"}.items() <= again.items()
    assert all(0 <= value <= 1 for key, value in row.items() if key.endswith("_top1"))
    assert run(point, seed=2)["cosine"] != row["cosine"]


def test_a_fixed_scale_stays_and_a_learned_one_moves(few_drawings):
    scales = [sweeps.gap(scale)["logit_scale"] for scale in (5.0, 100.0, None)]
    assert scales[:2] == pytest.approx([5, 100], rel=1e-4)
    assert scales[2] != pytest.approx(1 / 0.07, abs=1e-4)


def test_a_rate_multiplies_the_learning_rates_of_both_optimizers(few_drawings, monkeypatch):
    recipes = []
    monkeypatch.setattr(sweeps, "_row", lambda seed, recipe: recipes.append(recipe) or {})
    sweeps._row.cache_clear = lambda: None
    sweeps.batch(64, rate=0.5)
    monkeypatch.setitem(sweeps.RATES, 128, 2.0)
    sweeps.batch(128)
    got = [(recipe.batch_size, recipe.learning_rate, recipe.convolution_learning_rate) for recipe in recipes]
    assert got == [(64, 2.5e-3, 0.05), (128, 1e-2, 0.2)]


def test_a_memoriser_knows_no_combination_that_it_never_saw(few_drawings):
    """What is measured, on features made by hand: images that lie at the texts of trained combinations, and only there."""
    splits = sweeps.drawings()
    is_trained = ~shapes.is_held_out(CLASSES)
    vectors = torch.eye(128)
    answers = torch.cat([splits["validation"].labels, splits["seen"].labels, CLASSES[is_trained][:30]])
    features = iter(vectors[answers].split(30))

    class Model:
        logit_scale = torch.tensor(0.0)

    class Run:
        model, tokenizer = Model(), None
        config = type("Config", (), {"templates": ("{}",)})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps, "class_features", lambda *_: vectors)
        patch.setattr(sweeps, "encode_images", lambda *_: next(features))
        row = sweeps.measure(Run(), splits, is_trained)
    assert row["seen_top1"] == row["validation_top1"] == row["cosine"] == 1 and row["other_cosine"] == 0
    assert row["never_seen_top1"] == 0 and row["answered_seen"] == 1 and row["gap"] == 0
    got = [
        sum(WORDS[answer][part] == WORDS[label][part] for answer, label in zip(answers[60:], LABELS, strict=True)) / 30
        for LABELS in [splits["never_seen"].labels]
        for part in (1, 2)
    ]
    assert [row["never_seen_color"], row["never_seen_shape"]] == pytest.approx(got, abs=1e-4)


def test_the_log_is_written_row_by_row_and_goes_on_where_it_was(tmp_path):
    log, asked = tmp_path / "log.jsonl", []

    def work(point, seed):
        asked.append((point, seed))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return {"value": 10 * seed}

    keys = [{"point": point, "seed": seed} for seed in (0, 1) for point in (None, 2)]
    with pytest.raises(KeyboardInterrupt):
        over_seeds.extend(log, keys, work)
    over_seeds.extend(log, keys, work)
    assert asked == [(None, 0), (2, 0), (None, 1), (None, 1), (2, 1)]
    found = over_seeds.read(log)
    assert [{"point": row["point"], "seed": row["seed"]} for row in found] == keys
    assert [row["value"] for row in found] == [0, 0, 10, 10]
    assert all(row["torch"] == torch.__version__ and row["threads"] == torch.get_num_threads() for row in found)
    assert over_seeds.read(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("name", sweeps.SWEEPS)
def test_the_log_holds_each_point_with_the_same_seeds(name):
    counts = Counter(row["point"] for row in sweeps.rows(name))
    assert list(counts) == list(sweeps.SWEEPS[name].points) and set(counts.values()) == {SEEDS[name]}
    assert len({(row["point"], row["seed"]) for row in sweeps.rows(name)}) == counts.total()


SEEDS = {"composition": 5, "batch": 5, "negatives": 5, "gap": 5}


def test_the_log_holds_one_training_three_times():
    """A quarter held out, batches of 32 as one group, a learned scale: all at the recipe's rates."""
    base = {"composition": 1 / 4, "negatives": 32, "gap": None}
    found = [[row for row in sweeps.rows(name) if row["point"] == point] for name, point in base.items()]
    for same in zip(*found, strict=True):
        assert len({row["never_seen_top1"] for row in same}) == len({row["gap"] for row in same}) == 1


def test_each_batch_size_has_the_rate_that_validated_best():
    tried = [row for row in over_seeds.read(sweeps.LOG) if row["sweep"] == "rate"]
    for size, rate in sweeps.RATES.items():
        accuracies = {row["rate"]: row["validation_top1"] for row in tried if row["point"] == size}
        assert set(accuracies) >= set(sweeps.RATES_TRIED) and accuracies[rate] == max(accuracies.values())


def test_the_tool_measures_the_sweep_that_it_names(few_drawings):
    """A rate that was tried is a batch with this rate."""
    assert measure("rate", 32, 0, rate=1.0) == sweeps.batch(32, rate=1.0)
    assert measure("gap", 5.0, 0) == sweeps.gap(5.0)


def test_the_plot_draws_what_the_rows_say(tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"
    values = {2: (0.2, 0.4), 4: (0.5, 0.5), 8: (0.6, 0.6), 16: (0.7, 0.7), 32: (0.9, 1.0)}
    lines = [
        {"sweep": "negatives", "point": point, "seed": seed, "seen_top1": value, "never_seen_top1": value / 2}
        for point, both in reversed(values.items())
        for seed, value in enumerate(both)
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(sweeps, "LOG", log)
    (axis,) = sweeps.plot("negatives", {"point": 8, "seen_top1": 0.66, "never_seen_top1": 0.33})
    seen, never_seen = (container.lines[0] for container in axis.containers)
    assert seen.get_ydata() == pytest.approx([30, 50, 60, 70, 95])
    assert never_seen.get_ydata() == pytest.approx([15, 25, 30, 35, 47.5])
    ((bottom, top), *_) = (part[:, 1] for part in axis.containers[0].lines[2][0].get_segments())
    assert (top - bottom) / 2 == pytest.approx(2**0.5 * 10)  # the deviation of 20 and 40
    stars = [line.get_xydata().tolist() for line in axis.lines if line.get_marker() == "*"]
    assert stars == [[[2, 66]], [[2, 33]]]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["2", "4", "8", "16", "32"]
    assert "2 seeds" in axis.get_xlabel()
    plt.close("all")


@pytest.mark.parametrize(
    "points, style, places", [((1, 2), "-", [[0, 1], [0, 1]]), ("ab", "None", [[-0.05, 0.95], [0.05, 1.05]])]
)
def test_no_line_joins_points_that_are_words_and_none_hides_another(points, style, places):
    sweep = sweeps.Sweep(dict, {point: "" for point in points}, "", {"%": {"one": "one", "other": "other"}})
    (axis,) = sweeps.draw_sweep(sweep, [{"point": point, "seed": 0, "one": 1, "other": 1} for point in points])
    lines = [container.lines[0] for container in axis.containers]
    assert [line.get_linestyle() for line in lines] == [style] * 2
    assert [list(line.get_xdata()) for line in lines] == places
    plt.close("all")


@pytest.mark.parametrize("name", sweeps.SWEEPS)
def test_each_sweep_has_a_plot(name):
    axes = sweeps.plot(name, sweeps.rows(name)[0])
    assert len(axes) == len(sweeps.SWEEPS[name].panels)
    plt.close("all")
