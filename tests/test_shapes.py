import hashlib
from collections import Counter

import pytest
import torch

from miniclip_utils import load_run, shapes
from miniclip_utils.evaluate import class_features, encode_images


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


def several(objects: int, scenes: int = 40, **options: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(128, (scenes, objects), generator=generator)
    return labels, *shapes.draw_scenes(labels, generator, **options)


def quadrants_of(masks: torch.Tensor) -> torch.Tensor:
    """In which quadrant each mask (N, K, H, W) lies, (N, K); none may lie in two."""
    n, k, height, width = masks.shape
    parts = masks.view(n, k, 2, height // 2, 2, width // 2).any(dim=5).any(dim=3).flatten(2)  # (N, K, 4)
    assert (parts.sum(dim=2) == 1).all()
    return parts.float().argmax(dim=2)


@pytest.mark.parametrize("objects", [1, 2, 3, 4])
def test_objects_of_a_scene_lie_in_different_quadrants_and_share_no_pixel(objects):
    labels, images, masks = several(objects)
    assert images.shape == (40, 3, 64, 64) and images.dtype == torch.uint8
    assert masks.shape == (40, objects, 64, 64) and masks.dtype == torch.bool
    assert masks.sum(dim=1).max() == 1
    assert all(len(set(row)) == objects for row in quadrants_of(masks).tolist())


def test_each_quadrant_is_a_drawing_that_the_trained_model_names():
    """An object in its quadrant looks like a drawing of its class: size, colours, shape, rotation."""
    labels, images, masks = several(4, scenes=75)
    where = quadrants_of(masks)
    crops = images.view(75, 3, 2, 32, 2, 32).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (N, 4, 3, 32, 32)
    crops = crops.gather(1, where[:, :, None, None, None].expand_as(crops)).flatten(0, 1)
    run = load_run("shapes")
    classifier = class_features(run.model, run.tokenizer, shapes.CLASS_NAMES, run.config.templates[:1])
    named = (encode_images(run.model, crops) @ classifier.T).argmax(dim=1)
    assert (named == labels.flatten()).float().mean() > 0.97


def test_a_mask_is_where_half_a_pixel_or_more_is_ink():
    labels = torch.arange(8).repeat(5)[torch.randperm(40)].view(10, 4) + 64 * torch.randint(2, (10, 4))  # black ones
    images, masks = shapes.draw_scenes(labels, torch.Generator().manual_seed(1))
    gray = images.float().mean(dim=1)
    outside = gray.flatten(1).median(dim=1).values[:, None, None]
    ink = 1 - gray / outside  # (N, H, W): black ink is at most 0.06 bright, the noise at most 0.05
    inked = masks.any(dim=1)
    assert (ink[inked] > 0.35).all() and (ink[~inked] < 0.62).all()
    assert ink[inked].mean() > 0.85 and ink[~inked].abs().mean() < 0.05


def test_a_scene_has_one_paper_and_each_object_an_ink_of_its_own():
    labels, images, masks = several(2, scenes=200)
    paper = (
        torch.stack([images[n].float()[:, ~masks[n].any(dim=0)].median(dim=1).values for n in range(200)]) / 255
    )  # (N, 3)
    assert paper.min() > 0.66 and paper.max() <= 1.0 and paper.mean(dim=1).max() - paper.mean(dim=1).min() > 0.15
    assert 0.02 < paper.std(dim=1).mean() < 0.08  # tinted
    palette = torch.tensor(list(shapes.COLORS.values())) / 255
    for n in range(200):
        corners = images[n].float()[:, [0, 0, -1, -1], [0, -1, 0, -1]] / 255  # (3, 4): paper, whatever the quadrant
        assert ((corners - paper[n][:, None]).abs() < 0.065).all()
        for label, mask in zip(labels[n], masks[n], strict=True):
            ink = images[n].float()[:, mask].median(dim=1).values / 255
            assert ((ink - palette[label // 8 % 8]).abs() < 0.1).all()
    pink = torch.full((100, 2), 7 * 8)  # circles
    images, masks = shapes.draw_scenes(pink, torch.Generator().manual_seed(2))
    shades = [[image[:, mask].float().mean(dim=1) for mask in both] for image, both in zip(images, masks, strict=True)]
    unlike = torch.stack([one - other for one, other in shades]).abs().mean(dim=0)  # (3,), a third of the range on average
    assert ((unlike > 7) & (unlike < 14)).all()


def test_objects_lie_where_they_are_asked_to():
    quadrants = torch.stack([torch.randperm(4)[:3] for _ in range(30)])
    _, _, masks = several(3, scenes=30, quadrants=quadrants)
    assert torch.equal(quadrants_of(masks), quadrants)
    labels = torch.randint(64, (50, 2))
    left_and_right = torch.tensor([2, 1]).expand(50, 2)
    images, masks = shapes.draw_scenes(labels, torch.Generator().manual_seed(3), 32, left_and_right)
    assert images.shape == (50, 3, 32, 32) and torch.equal(quadrants_of(masks), left_and_right)
    column = (masks.sum(dim=2) * torch.arange(32)).sum(dim=2) / masks.sum(dim=(2, 3))
    assert (column[:, 0] < 16).all() and (column[:, 1] > 16).all()
    assert column.std(dim=0).min() > 0.5  # the place within the quadrant is random


def test_all_arrangements_come_equally_often():
    _, _, masks = several(2, scenes=1_200, image_size=46)
    pairs = Counter(map(tuple, quadrants_of(masks).tolist()))
    assert len(pairs) == 12 and all(60 < count < 140 for count in pairs.values())


def test_scenes_come_from_the_generator_alone():
    one, other = several(3), several(3)
    torch.rand(1)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert hashlib.sha256(one[1].contiguous().numpy().tobytes()).hexdigest()[:16] == "9a749ed0631ee346"


@pytest.mark.parametrize(
    "labels, options, message",
    [
        ([[64, 1]], {"image_size": 44}, "quadrant of 22 pixels"),
        ([[0, 127]], {"image_size": 32}, "quadrant of 16 pixels"),
        ([[0, 1]], {"image_size": 24}, "quadrant of 12 pixels"),
        ([[0, 1, 2, 3, 4]], {}, "quadrant of its own"),
        ([[0, 1]], {"quadrants": torch.tensor([[3, 3]])}, "quadrant of its own"),
        ([[0, 1, 2]], {"quadrants": torch.tensor([[3, 1, 3]])}, "quadrant of its own"),
        ([[0, 1], [2, 3]], {"quadrants": torch.tensor([[0, 1]])}, "quadrant of its own"),
    ],
)
def test_what_does_not_fit_a_scene_is_refused(labels, options, message):
    with pytest.raises(ValueError, match=message):
        shapes.draw_scenes(torch.tensor(labels), torch.Generator(), **options)


@pytest.mark.parametrize("label, size", [(64, 46), (63, 26)])
def test_the_smallest_scenes_are_drawn(label, size):
    images, masks = shapes.draw_scenes(torch.full((20, 4), label), torch.Generator().manual_seed(0), size)
    assert images.shape == (20, 3, size, size) and len(quadrants_of(masks)) == 20
