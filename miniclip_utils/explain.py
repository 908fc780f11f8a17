"""Where a model looks: similarity maps and Grad-CAM for the ResNet, occlusion for any image tower, attention maps for
the Vision Transformer and the text tower, and how well a map fits a mask."""

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
    maps = (weights * kept[0].detach()).sum(dim=1).relu()  # (N, h, w)
    maps = upsample(maps, (images.shape[2], images.shape[3]), 2 ** (stage % len(stages) + 1))
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def upsample(maps: Tensor, image_size: int | tuple[int, int], stride: int = 8) -> Tensor:
    """Enlarges maps of a ResNet's positions to the size of its images, bilinearly.

    Args:
        maps: (N, h, w).
        image_size: height and width in pixels, one number for a square.
        stride: pixels from one position to the next: 8 in the third stage, 4 in the second.

    Returns:
        (N, H, W).
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    maps = F.interpolate(maps[:, None], scale_factor=stride, mode="bilinear")
    # Halving leaves out an odd last row, so the positions may end before the picture does.
    return F.pad(maps, (0, width - maps.shape[3], 0, height - maps.shape[2]), mode="replicate")[:, 0]


@torch.no_grad()
def similarity_map(model: MiniCLIP, images: Tensor, text_features: Tensor) -> Tensor:
    """The cosine of each position's own feature with a text, as MaskCLIP does for CLIP (Zhou et al. 2022, §3.2).

    The ResNet's feature is the mean over the last stage's positions, and the projection is linear. So the image feature
    is the mean of the projected positions: each can be compared with a text, without any training, which is the
    idea of class activation maps (Zhou et al. 2016, §2).

    Args:
        images: uint8 (N, 3, H, W), also larger than the training's: there are more positions then.
        text_features: (N, embed_dim), a text for each image, or (1, embed_dim) for all of them.

    Returns:
        (N, h, w), cosines, one for each position: 3×3 for 32 pixels, 7×7 for 64. See `upsample`.

    Raises:
        ValueError: the image tower is not a ResNet.
    """
    tower = model.image_encoder
    if not isinstance(tower, ResNet):
        raise ValueError("a similarity map needs a ResNet, whose feature is a mean over positions")
    with evaluating(model):
        positions = tower.stages(tower.stem(normalize(images.to(model.logit_scale.device))).relu())  # (N, C, h, w)
        projected = model.image_projection(positions.movedim(1, 3))  # (N, h, w, embed_dim)
    return F.cosine_similarity(projected, text_features[:, None, None], dim=3)


@torch.no_grad()
def occlusion_map(model: MiniCLIP, images: Tensor, text_features: Tensor, size: int = 8, stride: int = 4) -> Tensor:
    """How much the cosine with a text falls when a place is covered (Zeiler and Fergus 2014, §4.2). For any image tower.

    A square of the picture's mean colour moves over it. A pixel gets the mean over all squares that cover it.

    Args:
        images: uint8 (N, 3, H, W).
        text_features: (N, embed_dim), a text for each image, or (1, embed_dim) for all of them.
        size: height and width of the square in pixels.
        stride: by how many pixels it moves, at most `size`. The last squares end at the border.

    Returns:
        (N, H, W), differences of cosines: above 0 where covering makes picture and text less alike.

    Raises:
        ValueError: the stride leaves pixels between the squares, or the square is larger than the images.
    """
    height, width = images.shape[2:]
    if not 0 < stride <= size <= min(height, width):
        raise ValueError(f"squares of {size} pixels, {stride} apart, do not cover images of {height} by {width}")
    pixels = normalize(images.to(model.logit_scale.device))
    color = pixels.mean(dim=(2, 3), keepdim=True)  # (N, 3, 1, 1)
    fallen, squares = torch.zeros_like(pixels[:, 0]), torch.zeros_like(pixels[:, 0])  # (N, H, W)
    with evaluating(model):
        whole = F.cosine_similarity(model.encode_image(pixels), text_features)  # (N,)
        for top in [*range(0, height - size, stride), height - size]:
            for left in [*range(0, width - size, stride), width - size]:
                square = (..., slice(top, top + size), slice(left, left + size))
                covered = pixels.clone()
                covered[square] = color
                cosines = F.cosine_similarity(model.encode_image(covered), text_features)
                fallen[square] += (whole - cosines)[:, None, None]
                squares[square] += 1
    return fallen / squares


def intersection_over_union(maps: Tensor, masks: Tensor, threshold: float) -> Tensor:
    """How well the high part of each map fits a mask: pixels in both, divided by pixels in either (Jaccard index).

    Each map is first scaled so that its lowest value is 0 and its highest 1. So maps with different units can be compared;
    the threshold must have been chosen on other pictures, for each kind of map.

    Args:
        maps: (N, H, W).
        masks: bool (N, H, W).
        threshold: in [0, 1); what lies above it counts as marked.

    Returns:
        (N,), in [0, 1]. A map that is the same everywhere marks nothing.
    """
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    marked = (maps - low) / (high - low).clamp(min=1e-12) > threshold
    both, either = (marked & masks).sum(dim=(1, 2)), (marked | masks).sum(dim=(1, 2))
    return both / either.clamp(min=1)


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
