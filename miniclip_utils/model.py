"""MiniCLIP: two towers, two projections, one learned temperature."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .image_encoder import ResNet, VisionTransformer, start_as_identity
from .text_encoder import TextTransformer
from .transformer import QuickGELU

MAX_LOGIT_SCALE = math.log(100)  # the paper's cap, §2.5: "to prevent scaling the logits by more than 100"


@dataclass(frozen=True)
class ModelConfig:
    """All that fixes the architecture, but for the vocabulary, which the data gives.

    Args:
        embed_dim: dimensions of the space that both towers are projected into.
        image_size: height and width of the images in pixels.
        image_tower: "resnet" (which reads `resnet_*`) or "vit" (which reads `vit_*`).
        resnet_shortcuts: False takes them out, see `start_as_identity`.
        text_eos: number of the token at which a causal text tower is read; None for a [CLS] vector, see `TextTransformer`.
        quick_gelu: `QuickGELU` in the encoder blocks of both towers, in the place of GELU.
    """

    embed_dim: int = 128
    image_size: int = 32
    image_tower: str = "resnet"
    resnet_stem_width: int = 16
    resnet_widths: tuple[int, ...] = (32, 64, 128)
    resnet_blocks: tuple[int, ...] = (1, 1, 1)
    resnet_shortcuts: bool = True
    vit_patch_size: int = 4
    vit_width: int = 128
    vit_layers: int = 4
    vit_num_heads: int = 4
    text_width: int = 64
    text_layers: int = 3
    text_num_heads: int = 4
    text_eos: int | None = None
    quick_gelu: bool = False


PRESETS = {
    "small": ModelConfig(),
    "medium": ModelConfig(resnet_stem_width=24, resnet_widths=(64, 256, 256), resnet_shortcuts=False),
    "vit-small": ModelConfig(image_tower="vit", vit_width=64, vit_layers=3),
}


class MiniCLIP(nn.Module):
    """Contrastive Language–Image Pre-training (Radford et al. 2021, figure 3), with openai/CLIP's method names.

    Args:
        config: the architecture.
        vocab_size: `len(tokenizer)`.
        context_length: `tokenizer.context_length`.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, context_length: int):
        super().__init__()
        self.config = config
        activation = QuickGELU if config.quick_gelu else nn.GELU
        self.image_encoder: ResNet | VisionTransformer
        if config.image_tower == "resnet":
            self.image_encoder = ResNet(
                stem_width=config.resnet_stem_width, widths=config.resnet_widths, blocks=config.resnet_blocks
            )
            if not config.resnet_shortcuts:
                start_as_identity(self.image_encoder)
        elif config.image_tower == "vit":
            self.image_encoder = VisionTransformer(
                image_size=config.image_size,
                patch_size=config.vit_patch_size,
                width=config.vit_width,
                layers=config.vit_layers,
                num_heads=config.vit_num_heads,
                activation=activation,
            )
        else:
            raise ValueError(f"image_tower must be 'resnet' or 'vit', not {config.image_tower!r}")
        self.text_encoder = TextTransformer(
            vocab_size=vocab_size,
            context_length=context_length,
            width=config.text_width,
            layers=config.text_layers,
            num_heads=config.text_num_heads,
            eos=config.text_eos,
            activation=activation,
        )
        self.image_projection = nn.Linear(self.image_encoder.width, config.embed_dim, bias=False)  # W_i
        self.text_projection = nn.Linear(config.text_width, config.embed_dim, bias=False)  # W_t
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # t, the log of the inverse temperature

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, image_size, image_size) → image features (N, embed_dim), not normalised."""
        return self.image_projection(self.image_encoder(images))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token numbers, int64 (N, L) → text features (N, embed_dim), not normalised."""
        return self.text_projection(self.text_encoder(tokens))

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Compares each of N images with each of M texts.

        Returns:
            logits_per_image (N, M) and logits_per_text (M, N): cosines times `logit_scale.exp()`.
        """
        image_features = F.normalize(self.encode_image(images), dim=-1)
        text_features = F.normalize(self.encode_text(tokens), dim=-1)
        logits_per_image = self.logit_scale.exp() * image_features @ text_features.T
        return logits_per_image, logits_per_image.T

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Caps the scale at 100. Called after each step: a cap in `forward` would have no gradient above it."""
        self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)


@contextmanager
def evaluating(model: MiniCLIP) -> Iterator[None]:
    """Evaluation mode for the length of a `with` block; then the mode that the model was in, also after an error."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
