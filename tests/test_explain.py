import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from miniclip_utils import MiniCLIP, ModelConfig
from miniclip_utils.data import normalize
from miniclip_utils.explain import (
    attention_maps,
    attention_rollout,
    grad_cam,
    intersection_over_union,
    occlusion_map,
    similarity_map,
    upsample,
)
from miniclip_utils.tokenizer import EOS, PAD, SOS

from .conftest import TINY

WORDS = 5  # numbers 4 … 8


@pytest.fixture
def model():
    return MiniCLIP(TINY, 4 + WORDS, 6)


@pytest.fixture
def vit():
    return MiniCLIP(ModelConfig(image_size=16, image_tower="vit", vit_width=16, vit_layers=2), 4 + WORDS, 6)


def enlarge(places: np.ndarray, factor: int, size: int) -> np.ndarray:
    """One map (h, w) → (size, size), each pixel read between the middles of the four places around it."""
    out = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            at = [min(max((p + 0.5) / factor - 0.5, 0), n - 1) for p, n in zip((row, column), places.shape, strict=True)]
            low = [int(a) for a in at]
            high = [min(a + 1, n - 1) for a, n in zip(low, places.shape, strict=True)]
            (y, x), (top, left), (bottom, right) = (at[0] - low[0], at[1] - low[1]), low, high
            above = (1 - x) * places[top, left] + x * places[top, right]
            below = (1 - x) * places[bottom, left] + x * places[bottom, right]
            out[row, column] = (1 - y) * above + y * below
    return out


def expected_map(places: np.ndarray, factor: int, size: int) -> np.ndarray:
    large = enlarge(np.maximum(places, 0), factor, size)
    return large / large.max() if large.max() > 0 else large


@pytest.mark.parametrize("size", [16, 32])
def test_grad_cam_of_the_last_stage_is_the_gradient_worked_out_by_hand(model, size):
    """cos = f·t/|f| for a unit t, f = W · mean(places), so its gradient is Wᵀ (t − cos · f/|f|) / |f|, at each place."""
    images = torch.randint(256, (4, 3, size, size), dtype=torch.uint8)
    texts = F.normalize(torch.randn(4, 16), dim=1)
    maps = grad_cam(model, images, texts)
    model.eval()
    with torch.no_grad():
        pixels = normalize(images)
        places = model.image_encoder.stages(model.image_encoder.stem(pixels).relu()).numpy()  # (N, C, h, w)
    weight = model.image_projection.weight.detach().numpy()  # (D, C)
    for image, text, channels in zip(maps.numpy(), texts.numpy(), places, strict=True):
        feature = weight @ channels.mean(axis=(1, 2))
        length = np.linalg.norm(feature)
        gradient = weight.T @ (text - (feature @ text) / length * feature / length) / length  # (C,)
        np.testing.assert_allclose(image, expected_map(np.tensordot(gradient, channels, 1), 4, size), atol=1e-5)


def test_grad_cam_of_an_earlier_stage_equals_autograd_without_a_hook(model):
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    text = F.normalize(torch.randn(1, 16), dim=1)
    maps = grad_cam(model, images, text, stage=0)
    tower = model.eval().image_encoder
    places = tower.stages[0](tower.stem(normalize(images)).relu()).detach().requires_grad_()
    feature = model.image_projection(tower.stages[1](places).mean(dim=(2, 3)))
    ((feature @ text[0]) / feature.norm(dim=1)).sum().backward()
    weighted = np.einsum("nc,nchw->nhw", places.grad.mean(dim=(2, 3)).numpy(), places.detach().numpy())
    for image, channels in zip(maps.numpy(), weighted, strict=True):
        np.testing.assert_allclose(image, expected_map(channels, 2, 16), atol=1e-5)


def test_grad_cam_works_on_frozen_weights_and_inference_tensors_and_leaves_no_trace(model):
    images = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        text = F.normalize(torch.randn(1, 16), dim=1)
    model.train().requires_grad_(False)
    maps = grad_cam(model, images, text)
    assert maps.shape == (2, 16, 16) and not maps.requires_grad
    assert model.training and not any(stage._forward_hooks for stage in model.image_encoder.stages)


def test_grad_cam_of_a_text_that_nothing_speaks_for_is_zero(model):
    with torch.no_grad():
        model.image_projection.weight.zero_()[0, 0] = 1.0  # one direction is all that is left: its cosine cannot move
    text = torch.zeros(1, 16)
    assert grad_cam(model, torch.zeros(1, 3, 16, 16, dtype=torch.uint8), text).eq(0).all()


def test_a_vision_transformer_has_no_grad_cam(vit):
    with pytest.raises(ValueError, match="attention_maps"):
        grad_cam(vit, torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(1, 128))


@pytest.mark.parametrize("size", [16, 32])
def test_the_image_feature_is_the_mean_of_the_projected_positions(model, size):
    """And each of these has with a text the cosine that the map says, in numpy."""
    images = torch.randint(256, (4, 3, size, size), dtype=torch.uint8)
    texts = F.normalize(torch.randn(4, 16), dim=1)
    maps = similarity_map(model, images, texts)
    assert maps.shape == (4, (size - 1) // 4, (size - 1) // 4)
    tower = model.eval().image_encoder
    with torch.no_grad():
        places = tower.stages(tower.stem(normalize(images)).relu()).numpy().astype(float)
        features = model.encode_image(normalize(images)).numpy()
    weight = model.image_projection.weight.detach().numpy()  # (D, C)
    projected = np.einsum("dc,nchw->nhwd", weight, places)
    np.testing.assert_allclose(projected.mean(axis=(1, 2)), features, atol=1e-5)
    dots = np.einsum("nhwd,nd->nhw", projected, texts.numpy())
    np.testing.assert_allclose(maps.numpy(), dots / np.linalg.norm(projected, axis=3), atol=1e-5)


def test_the_only_position_of_a_tiny_picture_has_the_cosine_of_the_picture(model):
    images = torch.randint(256, (4, 3, 5, 5), dtype=torch.uint8)
    text = F.normalize(torch.randn(1, 16), dim=1)
    maps = similarity_map(model.train(), images, text)
    assert model.training and not maps.requires_grad
    with torch.no_grad():
        features = model.eval().encode_image(normalize(images))
    torch.testing.assert_close(maps, F.cosine_similarity(features, text)[:, None, None])


def test_a_vision_transformer_has_no_similarity_map(vit):
    with pytest.raises(ValueError, match="ResNet"):
        similarity_map(vit, torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(1, 128))


def test_maps_are_enlarged_between_the_middles_of_their_positions():
    maps = torch.randn(3, 7, 7)
    for factor, size in ((8, 64), (8, 56), (4, 30)):
        for large, small in zip(upsample(maps, size, factor), maps, strict=True):
            np.testing.assert_allclose(large.numpy(), enlarge(small.numpy(), factor, size), atol=1e-5)
    assert torch.equal(upsample(maps, 64), upsample(maps, 64, 8))
    wide = upsample(maps[:, :3], (24, 60), 8)
    assert wide.shape == (3, 24, 60) and torch.equal(wide[:, :, -1], wide[:, :, 56])


def test_grad_cam_takes_pictures_that_are_not_square(model):
    images = torch.randint(256, (2, 3, 16, 24), dtype=torch.uint8)
    assert grad_cam(model, images, torch.randn(1, 16)).shape == (2, 16, 24)


def covered_by_hand(model, images, texts, size, stride):
    """Square by square and pixel by pixel, one picture at a time."""
    maps = []
    with torch.no_grad():
        for image, text in zip(normalize(images), texts, strict=True):
            before = F.cosine_similarity(model.encode_image(image[None]), text[None]).item()
            falls = [[[] for _ in range(image.shape[2])] for _ in range(image.shape[1])]
            tops, lefts = (sorted({*range(0, n - size + 1, stride), n - size}) for n in image.shape[1:])
            for top in tops:
                for left in lefts:
                    copy = image.clone()
                    inside = [(y, x) for y in range(top, top + size) for x in range(left, left + size)]
                    for channel in range(3):
                        for y, x in inside:
                            copy[channel, y, x] = image[channel].mean()
                    after = F.cosine_similarity(model.encode_image(copy[None]), text[None]).item()
                    for y, x in inside:
                        falls[y][x].append(before - after)
            maps.append([[np.mean(values) for values in row] for row in falls])
    return np.array(maps)


@pytest.mark.parametrize("height, width, size, stride", [(16, 16, 8, 4), (9, 12, 4, 3), (7, 10, 5, 5), (8, 8, 8, 1)])
def test_occlusion_covers_square_by_square(model, height, width, size, stride):
    images = torch.randint(256, (3, 3, height, width), dtype=torch.uint8)
    texts = F.normalize(torch.randn(3, 16), dim=1)
    maps = occlusion_map(model.train(), images, texts, size, stride)
    assert model.training and not maps.requires_grad
    np.testing.assert_allclose(maps.numpy(), covered_by_hand(model.eval(), images, texts, size, stride), atol=1e-5)


def test_occlusion_takes_squares_of_8_and_a_vision_transformer(vit):
    images, text = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8), torch.randn(1, 128)
    maps = occlusion_map(vit, images, text)
    assert torch.equal(maps, occlusion_map(vit, images, text.expand(2, -1), size=8, stride=4))
    assert maps.abs().max() > 1e-4


def test_occlusion_shows_the_only_place_that_counts(model, monkeypatch):
    monkeypatch.setattr(model, "encode_image", lambda pixels: pixels[:, :, 5:7, 9:11].mean(dim=(2, 3)) + 10)
    images = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    images[:, 1:, 5:7, 9:11] = 0  # red where it counts
    text = F.normalize(normalize(images)[:, :, 5, 9] + 10, dim=1)
    (fallen,) = occlusion_map(model, images, text, size=2, stride=1)
    counts = torch.zeros(16, 16, dtype=torch.bool)
    counts[4:8, 8:12] = True  # squares that touch it
    assert torch.equal(fallen > 1e-6, counts) and fallen.argmax() // 16 in (5, 6) and fallen.argmax() % 16 in (9, 10)


@pytest.mark.parametrize("height, width", [(16, 20), (20, 16)])
@pytest.mark.parametrize("size, stride", [(4, 5), (17, 4), (4, 0), (0, 0), (4, -1)])
def test_squares_that_do_not_cover_the_picture_are_refused(model, size, stride, height, width):
    with pytest.raises(ValueError, match=f"squares of {size} pixels, {stride} apart"):
        occlusion_map(model, torch.zeros(1, 3, height, width, dtype=torch.uint8), torch.zeros(1, 16), size, stride)


maps_and_masks = st.integers(2, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-8, 8), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
        st.integers(0, 7),
    )
)


@settings(max_examples=200, deadline=None)
@given(maps_and_masks)
def test_intersection_over_union_is_that_of_the_sets_of_pixels(case):
    values, mask, eighths = case
    span = max(values) - min(values)
    marked = {k for k, value in enumerate(values) if 8 * (value - min(values)) > eighths * span}
    true = {k for k, inside in enumerate(mask) if inside}
    expected = len(marked & true) / len(marked | true) if marked | true else 0.0
    maps = torch.tensor(values, dtype=torch.float64).view(1, 1, -1)
    masks = torch.tensor(mask).view(1, 1, -1)
    assert intersection_over_union(maps, masks, eighths / 8).tolist() == pytest.approx([expected])
    assert intersection_over_union(4 * maps + 16, masks, eighths / 8).tolist() == pytest.approx([expected])


def test_each_map_has_its_own_scale_and_its_own_mask():
    masks = torch.zeros(4, 6, 6, dtype=torch.bool)
    masks[0, :2], masks[1, 3:], masks[2, :, 1] = True, True, True
    maps = masks * torch.tensor([1.0, 50.0, 0.01, 1.0])[:, None, None] - 3
    assert intersection_over_union(maps, masks, 0.5).tolist() == [1, 1, 1, 0]
    assert intersection_over_union(maps, masks.flip(0), 0.5).tolist() == pytest.approx([0, 3 / 21, 3 / 21, 0])


def torch_attention(block: nn.Module, x: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    """The weights (N, heads, T, T) of torch's own attention layer with the same parameters; True in `hidden` hides."""
    ours = block.attention
    layer = nn.MultiheadAttention(x.shape[2], ours.num_heads, batch_first=True).to(x.dtype)
    layer.in_proj_weight.data, layer.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    x = block.norm_1(x)
    return layer(x, x, x, key_padding_mask=hidden, average_attn_weights=False)[1]


def test_attention_maps_of_the_text_tower_equal_torchs_own():
    model = MiniCLIP(ModelConfig(text_width=16, text_layers=3), 4 + WORDS, 6)
    tower = model.text_encoder.eval()
    tokens = torch.tensor([[SOS, 4, 5, 6, 7, EOS], [SOS, 8, EOS, PAD, PAD, PAD]])
    maps = attention_maps(tower, tokens)
    assert maps.shape == (3, 2, 4, 7, 7)
    hidden = F.pad(tokens == PAD, (1, 0))
    with torch.no_grad():
        x = tower.token_embedding(tokens) + tower.positional_embedding
        x = torch.cat([tower.cls_token.expand(2, 1, -1), x], dim=1)
        for layer, block in zip(maps, tower.blocks, strict=True):
            torch.testing.assert_close(layer, torch_attention(block, x, hidden))
            x = block(x, ~hidden[:, None, None, :])
    assert not any(module._forward_hooks for module in tower.modules())


def test_attention_maps_of_the_vision_transformer_equal_torchs_own(vit):
    tower, images = vit.image_encoder.eval(), torch.randn(3, 3, 16, 16)
    maps = attention_maps(tower, images)
    assert maps.shape == (2, 3, 4, 17, 17)
    with torch.no_grad():
        patches = tower.patch_embedding(images).flatten(2).transpose(1, 2)
        x = torch.cat([tower.class_token.expand(3, 1, -1), patches], dim=1) + tower.positional_embedding
        torch.testing.assert_close(maps[0], torch_attention(tower.blocks[0], tower.norm_in(x), None))


def test_rollout_is_the_product_of_the_layers_with_their_shortcuts():
    maps = torch.rand(3, 2, 4, 5, 5, dtype=torch.float64).softmax(dim=-1)
    rollout = attention_rollout(maps)
    for n in range(2):
        expected = np.linalg.multi_dot([(maps[k, n].numpy().mean(axis=0) + np.eye(5)) / 2 for k in (2, 1, 0)])
        np.testing.assert_allclose(rollout[n].numpy(), expected)
    np.testing.assert_allclose(rollout.sum(dim=-1).numpy(), 1.0)
