import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from miniclip_utils import MiniCLIP, ModelConfig
from miniclip_utils.data import normalize
from miniclip_utils.explain import attention_maps, attention_rollout, grad_cam
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
