"""The image towers: from pixels to one vector for each image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .transformer import EncoderBlock


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions whose result is added to a shortcut of the input (He et al. 2015, §3.2).

    Args:
        in_channels, out_channels: channels of the input and of the output.
        pool: halve height and width, by keeping the largest of each 2×2 values.
    """

    def __init__(self, in_channels: int, out_channels: int, pool: bool = False):
        super().__init__()
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm_1 = nn.BatchNorm2d(out_channels)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.pool(self.conv_1(x))
        residual = self.norm_1(residual).relu()
        residual = self.norm_2(self.conv_2(residual))
        return (residual + self.shortcut(self.pool(x))).relu()


class ResNet(nn.Module):
    """A residual network for small images: a stem, stages of residual blocks, the mean over all positions.

    Args:
        stem_width: channels of the stem, a 2×2 convolution without padding: 32 pixels become 31, and then 15, 7 and 3.
            An even number up to 24, for `whiten_stem`.
        widths: channels of each stage; each halves height and width in its first block.
        blocks: residual blocks of each stage.
    """

    def __init__(self, stem_width: int, widths: tuple[int, ...], blocks: tuple[int, ...]):
        super().__init__()
        self.width = widths[-1]
        self.stem = nn.Conv2d(3, stem_width, 2, bias=False)
        self.stages = nn.Sequential()
        channels = stem_width
        for width, depth in zip(widths, blocks, strict=True):
            stage = nn.Sequential(ResidualBlock(channels, width, pool=True))
            stage.extend(ResidualBlock(width, width) for _ in range(depth - 1))
            self.stages.append(stage)
            channels = width

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) of any size from 2**stages + 1 pixels → image features (N, widths[-1])."""
        feature_map = self.stages(self.stem(images).relu())  # (N, widths[-1], h, w)
        return feature_map.mean(dim=(2, 3))


class NoShortcut(nn.Module):
    """In the place of a shortcut: adds zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


def start_as_identity(resnet: ResNet) -> None:
    """Takes the shortcuts out of a ResNet, before its training; its convolutions begin as the identity instead.

    Of each convolution, the first filters copy one channel each, and the others stay random. So a block starts as what
    its shortcut would have been, but nothing holds it there (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single
    GPU", §3.3; without shortcuts also Zagoruyko and Komodakis 2017, "DiracNets"). Deep networks need their shortcuts; one
    of three blocks trains without.
    """
    for block in resnet.modules():
        if isinstance(block, ResidualBlock):
            block.shortcut = NoShortcut()  # type: ignore[assignment]
            for convolution in (block.conv_1, block.conv_2):
                nn.init.dirac_(convolution.weight.data[: convolution.in_channels])


@torch.no_grad()
def whiten_stem(resnet: ResNet, images: Tensor) -> None:
    """Fixes the filters of a ResNet's stem from images, before the training of the rest.

    Neighbouring pixels are nearly alike: filters at random see brightness and little else. These look along the
    principal directions of all 2×2 patches, and scale each to a variance of one, so that an edge or a tint speaks as
    loudly as brightness. Each comes twice, with either sign, since the ReLU cuts off what is negative
    (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", §3.2).

    Args:
        images: normalised (N, 3, H, W); a few thousand are plenty.
    """
    weight = resnet.stem.weight  # (stem_width, 3, 2, 2)
    patches = F.unfold(images, 2).transpose(1, 2).flatten(0, 1)  # (N·positions, 12)
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))  # in rising order
    filters = (directions / (variances + 5e-4).sqrt()).T.flip(0)[: len(weight) // 2]
    weight.copy_(torch.cat([filters, -filters]).view_as(weight))
    weight.requires_grad_(False)


class VisionTransformer(nn.Module):
    """CLIP's Vision Transformer: patches as tokens, a class token in front, its output as the feature (paper §2.4).

    Args:
        image_size: height and width of the images in pixels; a multiple of `patch_size`.
        patch_size: height and width of a patch.
        width: length of each token's vector, and of the feature.
        layers: encoder blocks.
        num_heads: attention heads in each block.
        activation: see `EncoderBlock`.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        width: int,
        layers: int,
        num_heads: int,
        activation: type[nn.Module] = nn.GELU,
    ):
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size {image_size} is not a multiple of patch_size {patch_size}")
        self.width = width
        self.patch_embedding = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.class_token = nn.Parameter(torch.randn(width) * width**-0.5)
        num_tokens = (image_size // patch_size) ** 2 + 1
        self.positional_embedding = nn.Parameter(torch.randn(num_tokens, width) * width**-0.5)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(EncoderBlock(width, num_heads, activation) for _ in range(layers))
        self.norm_out = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, image_size, image_size) → image features (N, width)."""
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)  # (N, patches, width)
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1)  # (N, 1 + patches, width)
        x = self.norm_in(x + self.positional_embedding)
        for block in self.blocks:
            x = block(x)
        return self.norm_out(x[:, 0])
