import hashlib

import pytest
import torch

from miniclip_utils import shapes


@pytest.fixture(scope="module")
def splits():
    return {split: shapes.make_shapes(split) for split in shapes.SPLITS}


def test_there_are_128_distinct_captions():
    assert len(set(shapes.CLASS_NAMES)) == 8 * 8 * 2


def test_sixteen_pairs_are_held_out_evenly():
    labels = torch.arange(128)
    held_out = [shapes.CLASS_NAMES[label].split() for label in labels[shapes.is_held_out(labels)]]
    pairs = {(color, shape) for _, color, shape in held_out}
    assert len(pairs) == 16 and len(held_out) == 32
    for position in (0, 1):
        names = [pair[position] for pair in pairs]
        assert all(names.count(name) == 2 for name in names)


def test_no_held_out_pair_is_in_training_validation_or_test(splits):
    for split in ("train", "validation", "test"):
        assert not shapes.is_held_out(splits[split][1]).any()
    assert shapes.is_held_out(splits["held_out"][1]).all()


def test_every_class_of_a_split_is_drawn(splits):
    assert len(splits["train"][1].unique()) == 96
    assert len(splits["held_out"][1].unique()) == 32


def test_splits_share_no_image(splits):
    seen = [hashlib.sha256(image.numpy().tobytes()).digest() for images, _ in splits.values() for image in images]
    assert len(seen) == len(set(seen)) == 26_000


def test_pixels_are_the_same_on_every_machine(splits):
    """The digest was taken once; another CPU, thread count or version of torch must not change it."""
    digest = hashlib.sha256(splits["test"][0].contiguous().numpy().tobytes()).hexdigest()[:16]
    assert digest == "e99ccf8ad20006ec"


def test_another_seed_draws_other_scenes(splits):
    images, _ = shapes.make_shapes("test", seed=1)
    assert not torch.equal(images, splits["test"][0])


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_signed_distances_change_by_at_most_the_way_walked(name):
    """An SDF is 1-Lipschitz: a step of length s changes the distance by s at the most."""
    points = torch.rand(10_000, 2, dtype=torch.float64) * 3 - 1.5
    step = torch.randn(10_000, 2, dtype=torch.float64) * 0.01
    sdf = shapes.SHAPES[name]
    change = sdf(*(points + step).unbind(1)) - sdf(*points.unbind(1))
    if name != "star":  # whose straight edges are prolonged beyond the tips
        assert (change.abs() <= step.norm(dim=1) + 1e-9).all()
    assert sdf(torch.tensor(5.0), torch.tensor(5.0)) > 0


def test_edges_are_smooth_and_shapes_stay_inside():
    generator = torch.Generator().manual_seed(0)
    black_on_light = torch.arange(128)[:8].repeat(50)  # small black shapes
    images = shapes.draw(black_on_light, generator).float().mean(dim=1)
    border = torch.cat([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], dim=1)
    assert (border > 128).float().mean() > 0.98
    between = ((images > 60) & (images < 140)).float().mean()
    assert 0.005 < between < 0.1


def test_sizes_and_colors_are_as_named():
    generator = torch.Generator().manual_seed(0)
    for label in (0, 64):  # small and large black circles
        images = shapes.draw(torch.full((20,), label), generator).float().mean(dim=1)
        area = (images < 100).float().sum(dim=(1, 2))
        radius = (area / torch.pi).sqrt() / 0.9
        low, high = list(shapes.SIZES.values())[label // 64]
        assert (radius > low - 0.6).all() and (radius < high + 0.6).all()
