"""Where a model looks: Grad-CAM for the ResNet, attention maps for the Vision Transformer and the text tower."""

from contextlib import ExitStack
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import normalize
from .image_encoder import ResNet, VisionTransformer
from .model import MiniCLIP, evaluating
from .text_encoder import TextTransformer


def grad_cam(model: MiniCLIP, images: Tensor, text_features: Tensor, stage: int = -1) -> Tensor:
    """Where in an image the cosine with a text comes from: Grad-CAM (Selvaraju et al. 2017, §3).

    Each channel of a stage's output is weighted with the mean gradient of the cosine over its positions. The sum over
    the channels is the map; what is negative, and so speaks against the text, becomes 0.

    Args:
        images: uint8 (N, 3, H, W).
        text_features: (N, embed_dim), a text for each image, or (1, embed_dim) for all of them.
        stage: which stage of the ResNet. The last one knows most and sees least sharply: 3×3 positions for 32 pixels.

    Returns:
        (N, H, W), the largest value of each map 1; a map without positive values is 0 everywhere.

    Raises:
        ValueError: the image tower is not a ResNet.
    """
    if not isinstance(model.image_encoder, ResNet):
        raise ValueError("Grad-CAM needs the stages of a ResNet: use attention_maps for a Vision Transformer")
    stages = model.image_encoder.stages
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())  # the gradient is needed from here on, and not before
        return kept[0]

    with stages[stage].register_forward_hook(keep), evaluating(model), torch.enable_grad():
        image_features = model.encode_image(normalize(images.to(model.logit_scale.device)))
        cosines = F.cosine_similarity(image_features, text_features.clone())  # (N,)
        (gradients,) = torch.autograd.grad(cosines.sum(), kept)  # (N, C, h, w)
    weights = gradients.mean(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
    maps = (weights * kept[0].detach()).sum(dim=1, keepdim=True).relu()  # (N, 1, h, w)
    # A position of stage s stands for 2^(s+1) pixels. Halving leaves out an odd last row, so they may end early.
    maps = F.interpolate(maps, scale_factor=2 ** (stage % len(stages) + 1), mode="bilinear")
    bottom, right = images.shape[2] - maps.shape[2], images.shape[3] - maps.shape[3]
    maps = F.pad(maps, (0, right, 0, bottom), mode="replicate")[:, 0]
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


@torch.no_grad()
def attention_maps(tower: TextTransformer | VisionTransformer, inputs: Tensor) -> Tensor:
    """The weight with which each token attends to each other one, in every block (Vaswani et al. 2017, §3.2.1).

    Args:
        tower: `model.text_encoder`, or `model.image_encoder` if that is a Vision Transformer.
        inputs: of the tower: token numbers (N, L), or normalised images (N, 3, H, W).

    Returns:
        (layers, N, num_heads, T, T): rows take, columns give, and each row adds up to 1. T counts the [CLS] vector
        or the class token in front, which is row 0.
    """
    maps: list[Tensor] = []
    with ExitStack() as hooks:
        for module in tower.modules():
            if isinstance(module, nn.Softmax):
                hooks.enter_context(module.register_forward_hook(lambda module, inputs, output: maps.append(output)))
        tower(inputs)
    return torch.stack(maps)


def attention_rollout(maps: Tensor) -> Tensor:
    """All blocks in one map (Abnar and Zuidema 2020, §3): the mean over the heads, half of it the shortcut, multiplied.

    Args:
        maps: (layers, N, num_heads, T, T), see `attention_maps`.

    Returns:
        (N, T, T): what each token's output takes from each token's input, if only attention mixed them.
    """
    steps = (maps.mean(dim=2) + torch.eye(maps.shape[-1], device=maps.device)) / 2  # (layers, N, T, T)
    return reduce(lambda rollout, step: step @ rollout, steps)
