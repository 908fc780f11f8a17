import math

import pytest
import torch
import torch.nn.functional as F

from miniclip_utils import MiniCLIP, ModelConfig
from miniclip_utils.model import PRESETS, evaluating
from miniclip_utils.openai import CONFIGS

from .conftest import TINY


@pytest.fixture
def model():
    return MiniCLIP(TINY, vocab_size=20, context_length=6).eval()


def test_forward_gives_scaled_cosines_both_ways(model):
    images, tokens = torch.randn(4, 3, 16, 16), torch.randint(4, 20, (5, 6))
    logits_per_image, logits_per_text = model(images, tokens)
    cosines = F.cosine_similarity(model.encode_image(images)[:, None], model.encode_text(tokens)[None], dim=-1)
    torch.testing.assert_close(logits_per_image, cosines / 0.07, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits_per_text, logits_per_image.T)


def test_scale_starts_where_the_paper_starts_it(model):
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07), rel=1e-6)


def test_scale_is_capped_in_place_and_keeps_its_gradient(model):
    model.logit_scale.data.fill_(10.0)
    model.clamp_logit_scale()
    assert model.logit_scale.exp().item() == pytest.approx(100, rel=1e-5)
    model.clamp_logit_scale()
    model(torch.randn(2, 3, 16, 16), torch.randint(4, 20, (2, 6)))[0].diag().sum().backward()
    assert model.logit_scale.grad != 0


def test_projections_are_linear(model):
    assert model.image_projection.bias is None and model.text_projection.bias is None


@pytest.mark.parametrize("name", ["small", "medium", "vit-small"])
def test_presets_build_and_run(name):
    config = PRESETS[name]
    model = MiniCLIP(config, vocab_size=30, context_length=8)
    logits, _ = model(torch.randn(2, 3, config.image_size, config.image_size), torch.randint(30, (3, 8)))
    assert logits.shape == (2, 3)


def test_vit_b_32_has_the_size_of_openai_s():
    """151,277,313 parameters in open_clip's ViT-B-32."""
    with torch.device("meta"):
        model = MiniCLIP(CONFIGS["ViT-B/32"], vocab_size=49408, context_length=77)
    assert sum(parameter.numel() for parameter in model.parameters()) == 151_277_313


def test_unknown_tower_is_refused():
    with pytest.raises(ValueError, match="image_tower"):
        MiniCLIP(ModelConfig(image_tower="cnn"), 10, 10)


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_puts_the_mode_back_also_after_an_error(model, training):
    model.train(training)
    with evaluating(model):
        assert not model.training and not model.text_encoder.training
    assert model.training == model.text_encoder.training == training
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model.training == training
