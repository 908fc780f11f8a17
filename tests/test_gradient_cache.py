"""The gradient cache against the backward pass of the whole batch."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from miniclip_utils import MiniCLIP, ModelConfig
from miniclip_utils.gradient_cache import cached_backward
from miniclip_utils.losses import clip_loss
from miniclip_utils.tokenizer import EOS

N = 10


def gradients(image_tower: str, chunk_size: int | None, training: bool = True) -> dict[str, torch.Tensor]:
    """Those of all parameters, with the loss itself; without chunks, of the whole batch at once."""
    torch.manual_seed(0)
    config = ModelConfig(embed_dim=16, image_size=16, image_tower=image_tower, resnet_widths=(8, 16), resnet_blocks=(1, 1))
    model = MiniCLIP(config, vocab_size=20, context_length=6).double().train(training)
    images, tokens = torch.randn(N, 3, 16, 16, dtype=torch.float64), torch.randint(EOS + 1, 20, (N, 6))

    def loss(image_features: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
        unit = partial(F.normalize, dim=-1)
        return clip_loss(unit(image_features), unit(text_features), model.logit_scale.exp())

    if chunk_size:
        value = cached_backward(model.encode_image, model.encode_text, images, tokens, loss, chunk_size)
    else:
        value = loss(model.encode_image(images), model.encode_text(tokens))
        value.backward()
    return {"loss": value.detach(), **{name: parameter.grad for name, parameter in model.named_parameters()}}


@pytest.mark.parametrize("chunk_size", [1, 3, 5, 100])
@pytest.mark.parametrize("image_tower, training", [("vit", True), ("resnet", False)])
def test_chunks_give_the_gradients_of_the_whole_batch(image_tower, training, chunk_size):
    expected = gradients(image_tower, None, training)
    got = gradients(image_tower, chunk_size, training)
    assert got["logit_scale"] is not None and not got["loss"].requires_grad
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-9, atol=1e-12, msg=name)


def test_they_do_not_where_a_batchnorm_sees_only_its_chunk():
    expected, got = gradients("resnet", None), gradients("resnet", 5)
    assert abs(got["loss"] - expected["loss"]) > 1e-3


def test_the_encoders_see_one_chunk_at_a_time():
    sizes = []

    def encode(rows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        return rows

    images, tokens = torch.randn(2, N, 4, requires_grad=True)
    cached_backward(encode, encode, images, tokens, lambda i, t: clip_loss(i, t, torch.tensor(1.0)), 4)
    assert sizes == 4 * [4, 4, 2]
