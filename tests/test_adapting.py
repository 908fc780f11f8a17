"""The ways to adapt a model: the drawings, what each way changes and keeps, and how the log is read."""

import hashlib
import json
from collections import Counter

import matplotlib.pyplot as plt
import pytest
import torch

from miniclip_utils import shapes
from miniclip_utils.checkpoint import load_run
from miniclip_utils.classroom import adapting
from miniclip_utils.evaluate import class_features, encode_images
from miniclip_utils.lora import merge_lora

OLD = ["a large red star", "a small blue ring"]


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(adapting, "STEPS", 2)


def old_features(run) -> tuple[torch.Tensor, torch.Tensor]:
    texts = class_features(run.model, run.tokenizer, OLD, ["{}"])
    return encode_images(run.model, adapting.old_drawings("test").images[:8]), texts


def test_a_style_of_its_own_leaves_the_old_drawings_as_they_were():
    """The digest was taken before there were styles."""
    images = shapes.draw(torch.arange(128), torch.Generator().manual_seed(7))
    assert hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()[:16] == "0c4f14befbb10b5e"


def test_the_new_words_are_new_and_the_classes_are_sixteen():
    known = load_run("shapes-vit").tokenizer.vocabulary
    words = {word for name in adapting.NAMES for word in name.split()}
    assert words - set(known) == set(adapting.NEW_WORDS) and len(set(adapting.NAMES)) == 16
    assert not set(adapting.PROMPT) & set(known)


@pytest.mark.parametrize("name", adapting.OUTLINES.shapes)
def test_an_outline_is_hollow(name):
    """Where the filled drawing has ink, some pixels are paper."""
    label = torch.tensor([list(adapting.OUTLINES.shapes).index(name)] * 20)  # all purple
    filled = shapes.Style(**(vars(adapting.OUTLINES) | {"line": None}))
    outline, whole = (
        shapes.draw(label, torch.Generator().manual_seed(0), style).float().mean(dim=1)
        for style in (adapting.OUTLINES, filled)
    )
    assert ((outline - whole > 60).flatten(1).sum(dim=1) > 30).all()


def test_examples_of_a_seed_are_the_same_and_splits_share_none():
    drawn = [adapting.examples(split, 2, seed).images for split in ("train", "validation", "test") for seed in (0, 1)]
    digests = [hashlib.sha256(images.numpy().tobytes()).hexdigest() for images in drawn]
    assert len(set(digests)) == 4  # the training drawings of two seeds, and one validation and one test split
    again = adapting.examples.__wrapped__("train", 2, 1)
    assert torch.equal(again.images, drawn[1])
    assert Counter(again.labels.tolist()) == dict.fromkeys(range(16), 2)


def test_new_words_come_last_and_change_no_old_feature():
    run = adapting.shipped()
    larger = adapting.with_new_words(run, adapting.NEW_WORDS)
    assert larger.tokenizer.vocabulary == (*run.tokenizer.vocabulary, *adapting.NEW_WORDS)
    for got, wanted in zip(old_features(larger), old_features(run), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", adapting.WAYS)
def test_a_way_changes_what_it_says_and_nothing_else(few_steps, name):
    start = adapting.shipped()
    images, texts = old_features(start)
    run, row = adapting.adapt(name, of_each=1, seed=0)
    new_images, new_texts = old_features(run)
    keeps_images = name not in ("LoRA", "all weights", "all, with old pairs")
    keeps_texts = name in ("learned prompt", "new words", "prompt and words")
    assert torch.allclose(new_images, images, atol=1e-6) == keeps_images
    assert torch.allclose(new_texts, texts, atol=1e-6) == keeps_texts
    width = start.config.model.text_width
    words = {"learned prompt": 4, "new words": 5, "prompt and words": 9}
    if name in words:
        assert row["changed"] == words[name] * width
    if name == "LoRA":  # 6 attention layers of width 64: rank 4 beside qkv and out, and the new words
        assert row["changed"] == 6 * 4 * (64 + 192 + 64 + 64) + 5 * width
        merge_lora(run.model)
        assert run.model.state_dict().keys() == start.model.state_dict().keys()
        for got, wanted in zip(old_features(run), (new_images, new_texts), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_model(few_steps):
    rows = [adapting.adapt("new words", of_each=1, seed=seed)[0].model.state_dict() for seed in (1, 1, 2)]
    name = "text_encoder.token_embedding.weight"
    assert torch.equal(rows[0][name], rows[1][name]) and not torch.equal(rows[0][name], rows[2][name])


def test_a_probe_learns_and_its_numbers_are_those_of_a_linear_layer():
    row = adapting.probe(of_each=4)
    assert row["changed"] == 16 * (128 + 1) and row["new_top1"] > 3 / 16


def test_the_ends_of_a_mixture_are_both_models(few_steps, monkeypatch):
    monkeypatch.setattr(adapting, "SHARES", (0.0, 1.0))
    start = adapting.with_new_words(adapting.shipped(), adapting.NEW_WORDS)
    run, row = adapting.adapt("all weights", of_each=1)
    first, last = adapting.mixtures(run, start)
    test = adapting.examples("test", 20)
    assert first["new_test"] == adapting.accuracy(start, test)
    assert (last["new_test"], last["old_test"]) == (row["new_top1"], row["old_top1"])


def test_the_mixture_is_chosen_on_validation():
    rows = [
        {"share": share, "new_validation": new, "old_validation": old, "new_test": 1 - new, "old_test": 1 - old}
        for share, new, old in ((0.0, 0.1, 0.9), (0.5, 0.6, 0.7), (1.0, 0.9, 0.2))
    ]
    assert adapting.choose_mixture(rows)["share"] == 0.5


@pytest.fixture
def written_log(tmp_path, monkeypatch):
    """Two seeds a point; seed 0 of 8 shots stands in the log as the trial of the chosen rate."""
    lines = []
    for way in adapting.ORDER:
        for shots in adapting.SHOTS:
            for seed in (0, 1):
                line = {"way": way, "shots": shots, "seed": seed, "new_top1": 0.2 + 0.2 * seed, "old_top1": 0.5}
                if (shots, seed) == (8, 0) and way in adapting.WAYS:
                    rate = adapting.WAYS[way].rate
                    lines.append(line | {"rate": 3 * rate, "new_top1": 0.99})
                    line["rate"] = rate
                lines.append(line | {"changed": 10, "seconds": 1.5})
    mixture = [
        {"share": share, "new_validation": share, "old_validation": 1 - share, "new_test": share, "old_test": 1 - share}
        for share in adapting.SHARES
    ]
    lines.append({"way": "all weights", "shots": 8, "seed": 0, "mixtures_of": "start", "mixtures": mixture})
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(adapting, "LOG", log)


@pytest.mark.parametrize("way", adapting.ORDER)
def test_each_seed_counts_once_and_other_rates_do_not(written_log, way):
    for shots in adapting.SHOTS:
        mean, deviation = adapting.measured(way, shots, "new_top1")
        assert (mean, deviation) == (pytest.approx(0.3), pytest.approx(0.2 / 2**0.5))


def test_plots_and_table_show_what_the_log_says(written_log, capsys):
    new, old = adapting.plot()
    assert len(new.containers) == len(old.containers) == len(adapting.ORDER)
    assert all(container.lines[0].get_ydata() == pytest.approx([30] * 5) for container in new.containers)
    adapting.table(shots=8)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("LoRA"))
    assert line.split() == ["LoRA", "30", "±", "14", "50", "±", "0", "10", "1.5"]
    axis = adapting.plot_mixtures([(0.4, 0.7)])
    stars = [line.get_xydata().tolist() for line in axis.lines if line.get_marker() == "*"]
    assert stars == [[[70, 40]]]
    plt.close("all")
