"""A big batch in the memory of a small one (GradCache, Gao et al. 2021, https://arxiv.org/abs/2101.06983)."""

from collections.abc import Callable

import torch
from torch import Tensor


def cached_backward(
    encode_image: Callable[[Tensor], Tensor],
    encode_text: Callable[[Tensor], Tensor],
    images: Tensor,
    tokens: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    chunk_size: int,
) -> Tensor:
    """Does what `loss(encode_image(images), encode_text(tokens)).backward()` does, with a chunk's activations at a time.

    Features are small, activations are not. So all features are made without activations, the loss gives the gradient
    of each feature, and each chunk passes its encoder once more to take its features' gradients to the weights: one
    forward pass more, and the gradients of the whole batch. They are exact where examples do not see each other;
    a BatchNorm in training mode normalises each chunk by itself, and so gives other features, and other gradients.

    Args:
        images, tokens: (N, …), what the encoders take.
        loss: two tensors of features (N, D) → scalar.
        chunk_size: examples that pass an encoder at once.

    Returns:
        the loss, a scalar without gradient.
    """
    sides = [(encode_image, images.split(chunk_size)), (encode_text, tokens.split(chunk_size))]
    with torch.no_grad():
        features = [torch.cat([encode(chunk) for chunk in chunks]) for encode, chunks in sides]
    value = loss(*(feature.requires_grad_() for feature in features))
    value.backward()  # also into whatever else `loss` holds, such as the logit scale
    for (encode, chunks), feature in zip(sides, features, strict=True):
        for chunk, gradient in zip(chunks, feature.grad.split(chunk_size), strict=True):  # type: ignore[union-attr]
            encode(chunk).backward(gradient)
    return value.detach()
