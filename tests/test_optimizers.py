"""The optimizers and their schedule."""

import numpy as np
import pytest
import torch

from miniclip_utils import MiniCLIP
from miniclip_utils.image_encoder import ResNet, whiten_stem
from miniclip_utils.model import PRESETS
from miniclip_utils.optimizers import Muon, learning_rate_factor, make_optimizers, orthogonalize

from .conftest import TINY


def test_every_parameter_has_one_optimizer_and_only_matrices_decay():
    model = MiniCLIP(TINY, vocab_size=20, context_length=6)
    whiten_stem(model.image_encoder, torch.randn(8, 3, 16, 16))
    optimizers = make_optimizers(model, learning_rate=1e-3, convolution_learning_rate=0.1, weight_decay=0.1)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    owned = [parameter for group in groups for parameter in group["params"]]
    assert (
        len(owned) == len({id(parameter) for parameter in owned}) == len([p for p in model.parameters() if p.requires_grad])
    )
    for group in groups:
        assert all((group.get("weight_decay", 0) > 0) <= (parameter.ndim >= 2) for parameter in group["params"])
    assert isinstance(model.image_encoder, ResNet) and all(p.ndim == 4 for p in optimizers[1].param_groups[0]["params"])


def test_a_vision_transformer_is_trained_by_adamw_alone():
    model = MiniCLIP(PRESETS["vit-small"], vocab_size=20, context_length=6)
    (adamw,) = make_optimizers(model, learning_rate=1e-3, convolution_learning_rate=0.1, weight_decay=0.1)
    assert sum(len(group["params"]) for group in adamw.param_groups) == len(list(model.parameters()))


def test_learning_rate_rises_and_falls():
    factors = [learning_rate_factor(step, 100, 10) for step in range(100)]
    assert factors[0] == 0.1 and factors[9] == 1.0 and max(factors) == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True) and factors[-1] < 0.001
    assert factors[55] == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(8, 8), (8, 30), (30, 8)])
def test_orthogonalize_is_near_the_polar_factor(shape):
    """The polar factor U Vᵀ of the singular value decomposition is the nearest orthogonal matrix."""
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    singular = torch.linalg.svdvals(orthogonalize(matrix, steps=5))
    assert (singular > 0.6).all() and (singular < 1.3).all()
    alignment = (orthogonalize(matrix, steps=5) * (u @ v)).sum() / min(shape)
    assert alignment > 0.7


def test_muon_keeps_norms_and_goes_downhill():
    weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3))
    target = torch.randn(8, 4, 3, 3)
    target *= 8**0.5 / target.norm()
    optimizer = Muon([weight], lr=0.05)
    distances = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = (weight - target).square().sum()
        loss.backward()
        optimizer.step()
        distances.append(loss.item())
    assert distances[-1] < 0.1 * distances[1]
    assert weight.norm().item() == pytest.approx(8**0.5, rel=0.1)


def test_muon_is_momentum_made_orthogonal():
    """Three steps against numpy: m ← μ m + g, then a step along the orthogonalised g + μ m, from a weight of fixed norm."""
    weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3, dtype=torch.float64))
    optimizer = Muon([weight], lr=0.05, momentum=0.6)
    expected, momentum = weight.detach().numpy().reshape(4, 27).copy(), np.zeros((4, 27))
    for _ in range(3):
        weight.grad = torch.randn_like(weight)
        gradient = weight.grad.numpy().reshape(4, 27)
        momentum = 0.6 * momentum + gradient
        u, singular, vt = np.linalg.svd(gradient + 0.6 * momentum, full_matrices=False)
        singular = singular / (np.sqrt((singular**2).sum()) + 1e-7)
        for _ in range(3):
            singular = 3.4445 * singular - 4.7750 * singular**3 + 2.0315 * singular**5
        expected = 2 * expected / np.linalg.norm(expected) - 0.05 * (u * singular) @ vt  # the norm is √4
        optimizer.step()
        np.testing.assert_allclose(weight.detach().numpy().reshape(4, 27), expected, rtol=1e-9, atol=1e-12)


def test_no_gradient_has_no_direction():
    """Zeros, as of a layer that nothing reached, give zeros and not 0/0."""
    assert torch.equal(orthogonalize(torch.zeros(3, 5)), torch.zeros(3, 5))
