"""OpenAI's CLIP in the course's classes: their Vision Transformers' sizes and weights (Radford et al. 2021, §2.4–2.5).

The byte-pair tokenizer and the preparation of images are open_clip's: `open_clip.get_tokenizer("ViT-B-32")` and
`open_clip.image_transform(model.config.image_size, is_train=False)`.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .checkpoint import load_weights, read_tensors
from .errors import UserError
from .model import MiniCLIP, ModelConfig

if TYPE_CHECKING:
    import open_clip  # an optional dependency, and slow to import

VOCAB_SIZE, CONTEXT_LENGTH = 49_408, 77

_VIT: dict[str, Any] = {"image_tower": "vit", "text_layers": 12, "text_eos": VOCAB_SIZE - 1, "quick_gelu": True}
_BASE = _VIT | dict(embed_dim=512, vit_width=768, vit_layers=12, vit_num_heads=12, text_width=512, text_num_heads=8)
_LARGE = _VIT | dict(embed_dim=768, vit_width=1024, vit_layers=24, vit_num_heads=16, text_width=768, text_num_heads=12)
CONFIGS = {
    "ViT-B/32": ModelConfig(image_size=224, vit_patch_size=32, **_BASE),
    "ViT-B/16": ModelConfig(image_size=224, vit_patch_size=16, **_BASE),
    "ViT-L/14": ModelConfig(image_size=224, vit_patch_size=14, **_LARGE),
    "ViT-L/14@336px": ModelConfig(image_size=336, vit_patch_size=14, **_LARGE),
}

# Part of a name in the course's classes → in OpenAI's files. The order matters: the bare prefix of a tower comes last.
RENAMED = {
    "image_encoder.patch_embedding": "visual.conv1",
    "image_encoder.class_token": "visual.class_embedding",
    "image_encoder.norm_in": "visual.ln_pre",
    "image_encoder.norm_out": "visual.ln_post",
    "image_encoder.blocks": "visual.transformer.resblocks",
    "image_encoder.": "visual.",
    "image_projection.weight": "visual.proj",
    "text_encoder.norm": "ln_final",
    "text_encoder.blocks": "transformer.resblocks",
    "text_encoder.": "",
    "text_projection.weight": "text_projection",
    ".norm_1": ".ln_1",
    ".attention.qkv.": ".attn.in_proj_",
    ".attention.out": ".attn.out_proj",
    ".norm_2": ".ln_2",
    ".mlp.0": ".mlp.c_fc",
    ".mlp.2": ".mlp.c_proj",
}
NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}  # three numbers in OpenAI's own files


def openai_name(name: str) -> str:
    """The name in OpenAI's and open_clip's files of a tensor of `MiniCLIP.state_dict()`."""
    for ours, theirs in RENAMED.items():
        name = name.replace(ours, theirs)
    return name


def config_of(tensors: Mapping[str, Tensor]) -> ModelConfig:
    """The sizes of one of OpenAI's Vision Transformers, read off the shapes of a state dict with their names.

    No tensor's shape tells the heads, the activation and the token that the text is read at. They are OpenAI's: 64
    dimensions for each head, `QuickGELU`, and the last number of the vocabulary.
    """
    width, _, patch_size, _ = tensors["visual.conv1.weight"].shape
    patches = len(tensors["visual.positional_embedding"]) - 1
    vocab_size, text_width = tensors["token_embedding.weight"].shape
    blocks = [name for name in tensors if name.endswith(".attn.in_proj_weight")]
    vit_layers = sum(name.startswith("visual.") for name in blocks)
    return ModelConfig(
        embed_dim=tensors["text_projection"].shape[1],
        image_size=math.isqrt(patches) * patch_size,
        image_tower="vit",
        vit_patch_size=patch_size,
        vit_width=width,
        vit_layers=vit_layers,
        vit_num_heads=width // 64,
        text_width=text_width,
        text_layers=len(blocks) - vit_layers,
        text_num_heads=text_width // 64,
        text_eos=vocab_size - 1,
        quick_gelu=True,
    )


def from_state_dict(tensors: Mapping[str, Tensor], config: ModelConfig) -> MiniCLIP:
    """Copies a state dict with OpenAI's names into a new model, in float32 and evaluation mode. Errors: see `load_weights`.

    Args:
        tensors: as in OpenAI's files and in open_clip's, of any floating-point type.
        config: one of `CONFIGS`. The activation has no weights that could tell it apart: for weights that open_clip's
            authors trained with plain GELU pass `replace(config, quick_gelu=False)`.
    """
    with torch.device("meta"):  # shapes without memory: no random weights, which would be overwritten at once
        model = MiniCLIP(config, VOCAB_SIZE, CONTEXT_LENGTH).to_empty(device="cpu")
    own = {openai_name(name): tensor for name, tensor in model.state_dict().items()}
    for name in ("visual.proj", "text_projection"):
        own[name] = own[name].T  # theirs is a plain matrix (in, out), and nn.Linear's weight is (out, in)
    given = {name: tensor for name, tensor in tensors.items() if name not in NOT_WEIGHTS}
    load_weights(own, given, "the state dict", "the config")
    return model.eval()


def from_open_clip(model: "open_clip.CLIP") -> MiniCLIP:
    """A `MiniCLIP` with the sizes, the activation and a copy of the weights of an open_clip model.

    A model that is built otherwise than CLIP's Vision Transformers is a `UserError`.
    """
    import open_clip

    is_vit = isinstance(model, open_clip.CLIP) and isinstance(model.visual, open_clip.transformer.VisionTransformer)
    if not (is_vit and model.visual.pool_type == "tok" and model.text_pool_type == "argmax" and model.attn_mask is not None):
        raise UserError(
            f"this {type(model).__name__} of open_clip is not built like CLIP's Vision Transformers: "
            "take a model such as 'ViT-B-32', with a class token in its image tower and a causal text tower"
        )
    visual, text, tensors = model.visual.transformer.resblocks[0], model.transformer.resblocks[0], model.state_dict()
    config = replace(
        config_of(tensors),
        vit_num_heads=visual.attn.num_heads,
        text_num_heads=text.attn.num_heads,
        quick_gelu=isinstance(visual.mlp.gelu, open_clip.transformer.QuickGELU),
    )
    return from_state_dict(tensors, config)


def load_clip(name: str, weights: str | Path | None = None, download: bool = True) -> MiniCLIP:
    """One of OpenAI's models, with its weights.

    Args:
        name: "ViT-B/32", "ViT-B/16", "ViT-L/14" or "ViT-L/14@336px".
        weights: a safetensors file with OpenAI's names. Without one, open_clip fetches OpenAI's weights from the
            Hugging Face hub once (about 600 MB for ViT-B/32) and keeps them in its cache.
        download: fetch them if they do not lie in the cache yet.

    Raises:
        UserError: the name is not known, the weights cannot be had, or they are of another model.
    """
    if name not in CONFIGS:
        raise UserError(f"there is no model {name!r} here: choose one of {', '.join(CONFIGS)}")
    path = _download(name, download) if weights is None else Path(os.path.expanduser(weights))
    if not os.path.isfile(path):
        raise UserError(f"there is no file {str(weights)!r}: name a safetensors file, or none to download the weights")
    return from_state_dict(read_tensors(path), CONFIGS[name])


def _download(name: str, download: bool) -> Path:
    """The path of OpenAI's weights in the Hugging Face hub's cache, downloaded if they are not there yet."""
    try:
        import open_clip
        from huggingface_hub import try_to_load_from_cache
    except ImportError as error:
        raise UserError("this needs open_clip: run 'python -m pip install open_clip_torch'") from error
    model_name = name.replace("/", "-").replace("@336px", "-336")
    entry = open_clip.get_pretrained_cfg(model_name, "openai")
    if not download:
        path = try_to_load_from_cache(entry["hf_hub"].rstrip("/"), open_clip.constants.HF_SAFE_WEIGHTS_NAME)
        if not isinstance(path, str):
            raise UserError(f"OpenAI's weights of {name} are not in the cache: allow the download, or name a file")
        return Path(path)
    try:
        return Path(open_clip.download_pretrained(entry))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"OpenAI's weights of {name} could not be downloaded from the Hugging Face hub: "
            "connect to the internet, or pass the path of a safetensors file that holds them"
        ) from error
