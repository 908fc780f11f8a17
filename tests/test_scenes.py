"""The scenes of two objects: what is drawn and said, the tests of order and binding, the experiments and their log."""

import re
from collections import Counter
from itertools import islice

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F

from miniclip_utils.classroom import scene_sweeps, scenes
from miniclip_utils.classroom.scenes import OBJECTS, World, caption, exchange_colors, exchange_sides
from miniclip_utils.data import normalize
from miniclip_utils.shapes import COLORS
from miniclip_utils.tokenizer import UNK
from tools.scenes import measure

ALL = scenes.scenes_by_words()


def words(scene) -> list[str]:
    return sorted(" ".join(OBJECTS[index] for index in scene).split())


def says(text: str) -> tuple[str, str]:
    """The left and the right object of a caption, read with a regular expression."""
    first, relation, second = re.fullmatch(r"a (\w+ \w+) (left of|right of|and) a (\w+ \w+)", text).groups()
    return (second, first) if relation == "right of" else (first, second)


def test_four_scenes_share_their_words_and_no_others_do():
    assert ALL.shape == (225, 4, 2)
    assert len({tuple(scene) for scene in ALL.flatten(0, 1).tolist()}) == 900
    bags = [{tuple(words(scene)) for scene in four} for four in ALL.tolist()]
    assert all(len(bag) == 1 for bag in bags) and len(set.union(*bags)) == 225


def test_in_usual_scenes_both_lists_are_in_order():
    for (left, right), *others in ALL.tolist():
        assert left // 6 < right // 6 and left % 6 < right % 6
        assert not any(a // 6 < b // 6 and a % 6 < b % 6 for a, b in others)


def test_exchanging_sides_or_colours_is_what_it_says():
    scene = torch.tensor([[OBJECTS.index("red circle"), OBJECTS.index("blue square")]])
    assert [OBJECTS[k] for k in exchange_sides(scene)[0]] == ["blue square", "red circle"]
    assert [OBJECTS[k] for k in exchange_colors(scene)[0]] == ["blue circle", "red square"]
    torch.testing.assert_close(ALL[:, 1], exchange_sides(ALL[:, 0]))
    torch.testing.assert_close(ALL[:, 3], exchange_colors(ALL[:, 0]))


def test_each_object_is_drawn_on_its_side_in_its_colour():
    scene = torch.tensor([[OBJECTS.index("red square"), OBJECTS.index("blue circle")]]).repeat(40, 1)
    images = scenes.draw(scene, torch.Generator().manual_seed(0)).float()
    assert images.shape == (40, 3, 32, 32)
    for half, color in ((images[..., :16], "red"), (images[..., 16:], "blue")):
        ink = torch.tensor(COLORS[color]).view(3, 1, 1)
        near = ((half - ink).abs().amax(dim=1) < 35).flatten(1).sum(dim=1)
        assert (near > 30).all()
        other = torch.tensor(COLORS["blue" if color == "red" else "red"]).view(3, 1, 1)
        assert ((half - other).abs().amax(dim=1) < 35).sum() == 0


@pytest.mark.parametrize("wording", ["left of", "right of", "and"])
def test_a_caption_is_true_and_its_swap_is_not(wording):
    for scene in ALL[::16].flatten(0, 1).tolist():
        text, (left, right) = caption(scene, wording), [OBJECTS[index] for index in scene]
        assert says(text) == (left, right)
        swapped = scenes.swap_objects(text)
        assert swapped is None if wording == "and" else says(swapped) == (right, left)
        colored = exchange_colors(torch.tensor([scene]))[0].tolist()
        assert says(scenes.swap_colors(text)) == tuple(OBJECTS[index] for index in colored)


def test_the_tokenizer_knows_all_that_is_said():
    tokenizer = scenes.scene_tokenizer()
    texts = [caption(scene, wording) for scene in ALL[:, 0].tolist() for wording in ("left of", "right of", "and")]
    texts += [scenes.count_caption(index, number) for index in range(36) for number in range(5)]
    texts += ["a heart that is not pink"]
    assert not (tokenizer(texts) == UNK).any()


@pytest.mark.parametrize("usual", [0.0, 0.25, 0.9, 1.0])
def test_a_world_has_as_many_usual_scenes_as_it_says(usual):
    is_usual = {tuple(scene) for scene in ALL[:, 0].tolist()}
    found = []
    for _, captions in islice(World(usual=usual).batches(seed=1), 20):
        for text in captions:
            found.append(tuple(OBJECTS.index(name) for name in says(text)) in is_usual)
    assert sum(found) / len(found) == pytest.approx(usual, abs=0.05)


@pytest.mark.parametrize("rivals, most", [(0.0, 1), (0.5, 4), (1.0, 4)])
def test_only_rivals_share_their_words(rivals, most):
    _, captions = next(World(rivals=rivals).batches(seed=2))
    bags = Counter(tuple(sorted(" ".join(says(text)).split())) for text in captions)
    assert len(captions) == 64 and set(bags.values()) <= {1, most}
    assert sum(count for count in bags.values() if count == 4) == 64 * rivals


def test_captions_say_the_sides_as_often_as_asked():
    captions = [text for _, batch in islice(World(said=0.25).batches(seed=3), 30) for text in batch]
    shares = Counter("and" if " and " in text else text.split()[3] for text in captions)
    for wording, share in (("and", 0.75), ("left", 0.175), ("right", 0.075)):
        assert shares[wording] / len(captions) == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("sixths", range(1, 4))
def test_what_is_held_out_is_never_shown(sixths):
    world = World(held_out=sixths / 6)
    out = {OBJECTS[k] for k in range(36) if world.is_held_out(torch.tensor(k))}
    assert len(out) == 6 * sixths
    for part in (0, 1):
        assert set(Counter(name.split()[part] for name in out).values()) == {sixths}
    shown = {name for _, batch in islice(world.batches(seed=4), 20) for text in batch for name in says(text)}
    assert shown == set(OBJECTS) - out


def test_picture_and_caption_belong_together():
    """The batch is drawn from the scenes that its captions describe, in their order: the colours say so."""
    images, captions = next(World().batches(seed=5))
    for image, text in zip(images.float(), captions, strict=True):
        for half, name in zip((image[..., :16], image[..., 16:]), says(text), strict=True):
            ink = torch.tensor(COLORS[name.split()[0]]).view(3, 1, 1)
            assert ((half - ink).abs().amax(dim=0) < 35).sum() > 10, text


def test_a_bag_of_halves_cannot_tell_the_sides():
    model = scenes.new_model(scenes.scene_tokenizer(), seed=0, image_encoder="halves").eval()
    images = normalize(scenes.draw(ALL[:8, 0], torch.Generator().manual_seed(0)))
    exchanged = torch.cat([images[..., 16:], images[..., :16]], dim=3)
    torch.testing.assert_close(model.encode_image(images), model.encode_image(exchanged))


def test_a_tower_that_keeps_positions_holds_their_mean():
    tower = scenes.new_model(scenes.scene_tokenizer(), seed=0, image_encoder="positions").image_encoder.eval()
    images = normalize(scenes.draw(ALL[:8, 0], torch.Generator().manual_seed(0)))
    kept = tower(images)
    assert kept.shape == (8, tower.width)
    torch.testing.assert_close(kept.view(8, 64, 9).mean(dim=2), tower.tower(images))


def test_a_bag_of_words_is_at_chance_by_ties():
    tokenizer = scenes.scene_tokenizer()
    model = scenes.new_model(tokenizer, seed=0, text_encoder="bag").eval()
    cosines = scenes.two_by_two(model, tokenizer, ALL[:50, 0], exchange_sides, ["left of"])
    assert scenes.swap_accuracy(cosines[:, 0, 0], cosines[:, 0, 1]) == 0.5


def test_cosines_of_two_by_two_are_those_of_their_pictures_and_captions(monkeypatch):
    """With features made by hand: a picture and a text have the same one if they are of the same scene."""
    table = F.normalize(torch.randn(36, 36, 128), dim=2)
    monkeypatch.setattr(scenes, "draw", lambda of, generator: of)

    def by_hand(model, tokenizer, of, texts):
        read = [[OBJECTS.index(name) for name in says(text)] for text in texts]
        return torch.stack([table[a, b] for a, b in of.tolist()]), torch.stack([table[a, b] for a, b in read])

    monkeypatch.setattr(scenes, "features", by_hand)
    for exchange in (exchange_sides, exchange_colors):
        cosines = scenes.two_by_two(None, None, ALL[:, 0], exchange, ["left of", "right of"])
        torch.testing.assert_close(cosines.diagonal(dim1=1, dim2=2), torch.ones(225, 2))
        assert scenes.group_scores(cosines) == (1, 1, 1)
        assert scenes.group_scores(cosines.flip(2)) == (0, 0, 0)
    assert scenes.retrieval(None, None, ALL[:, 0]) == 1


def test_without_swaps_there_are_no_wrong_captions_and_with_them_only_false_ones():
    tokenizer, got = scenes.scene_tokenizer(), []

    def loss(images, texts, wrong, scale):
        got.append((len(texts), len(wrong)))
        return (images @ texts.T).mean() + wrong.sum()

    for swaps in ((), (scenes.swap_objects,), (scenes.swap_objects, scenes.swap_colors)):
        model = scenes.new_model(tokenizer, seed=0)
        scenes.train(model, tokenizer, World(said=0.0).batches(0), swaps, loss, steps=2)
    assert got == 2 * [(64, 0)] + 2 * [(64, 0)] + 2 * [(64, 64)]


def test_equal_objects_are_as_many_as_asked():
    index, numbers = torch.full((40,), OBJECTS.index("black square")), torch.arange(1, 5).repeat(10)
    images = scenes.draw_equal(index, numbers, torch.Generator().manual_seed(0))
    for image, number in zip(images.float(), numbers, strict=True):
        cells = image.mean(dim=0).view(2, 16, 2, 16).amin(dim=(1, 3))  # the darkest pixel of each quadrant
        assert (cells < 60).sum() == number


@pytest.fixture
def short(monkeypatch):
    """Trainings of two steps."""
    scene_sweeps._row.cache_clear()
    train = scene_sweeps.train
    monkeypatch.setattr(scene_sweeps, "train", lambda *arguments, **more: train(*arguments, **more | {"steps": 2}))
    yield
    scene_sweeps._row.cache_clear()


@pytest.mark.parametrize("name", scene_sweeps.SWEEPS)
def test_an_experiment_runs_and_the_same_seed_gives_the_same(short, name):
    point = list(scene_sweeps.SWEEPS[name].points)[-1]
    row = measure(name, point, 1)
    scene_sweeps._row.cache_clear()
    assert row == measure(name, point, 1) and row != measure(name, point, 2)
    assert all(0 <= value <= 1 for value in row.values())
    assert {key for measures in scene_sweeps.SWEEPS[name].panels.values() for key in measures} <= set(row)


@pytest.mark.parametrize("name", scene_sweeps.SWEEPS)
def test_the_log_holds_each_point_with_the_same_seeds_and_has_a_plot(name):
    rows = scene_sweeps.rows(name)
    counts = Counter(row["point"] for row in rows)
    assert list(counts) == list(scene_sweeps.SWEEPS[name].points) and set(counts.values()) == {5}
    assert len({(row["point"], row["seed"]) for row in rows}) == counts.total()
    assert len(scene_sweeps.plot(name, rows[0])) == len(scene_sweeps.SWEEPS[name].panels)
    plt.close("all")


def test_the_log_holds_one_training_several_times():
    """The free world with the course's parts stands in five experiments."""
    base = {"usual": 0.25, "said": 1.0, "wording": 0.7, "rivals": 0.0, "towers": "mean"}
    found = [[row for row in scene_sweeps.rows(name) if row["point"] == point] for name, point in base.items()]
    for same in zip(*found, strict=True):
        assert len({row["order"] for row in same}) == len({row["retrieval"] for row in same}) == 1
