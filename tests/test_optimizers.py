"""The optimizers and their schedule."""

import pytest
import torch

from miniclip_utils import MiniCLIP
from miniclip_utils.image_encoder import ResNet, whiten_stem
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
