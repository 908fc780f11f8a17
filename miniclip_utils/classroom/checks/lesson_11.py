"""Checks of lesson 11: QuickGELU, OpenAI's names, what a larger picture needs, FLOPs, and how far apart cosines must be."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ...image_encoder import VisionTransformer
from ...openai import openai_name
from ...transformer import QuickGELU
from . import Function, exercise, solved


@exercise(
    inputs=lambda: (2 * torch.randn(4, 6),),
    package=QuickGELU(),
    mistakes={
        "this is GELU itself: near, but not what OpenAI's weights were trained with": F.gelu,
        "this is GELU by the tanh formula: OpenAI's code has the sigmoid": lambda x: F.gelu(x, approximate="tanh"),
        "the 1.702 is missing: x · sigmoid(x) is SiLU": F.silu,
        "this is only the gate, between 0 and 1: multiply x with it": lambda x: torch.sigmoid(1.702 * x),
        "the 1.702 stands outside: it belongs inside the sigmoid": lambda x: 1.702 * x * torch.sigmoid(x),
        "the 1.702 counts twice: x itself is not scaled": lambda x: 1.702 * x * torch.sigmoid(1.702 * x),
        "this is ReLU, with a corner at 0": F.relu,
        "the sign inside the sigmoid is turned: large x must pass": lambda x: x * torch.sigmoid(-1.702 * x),
    },
)
def quick_gelu(x: Tensor) -> Tensor:
    return x - x / (1 + torch.exp(1.702 * x))  # x times (1 minus the chance of the opposite)


PARTS = {
    "norm_1.weight": "ln_1.weight",
    "attention.qkv.weight": "attn.in_proj_weight",
    "attention.qkv.bias": "attn.in_proj_bias",
    "attention.out.weight": "attn.out_proj.weight",
    "norm_2.bias": "ln_2.bias",
    "mlp.0.weight": "mlp.c_fc.weight",
    "mlp.2.bias": "mlp.c_proj.bias",
}


def draw_names() -> list[tuple[str]]:
    blocks = 0, 2, int(torch.randint(3, 12, ()))  # 0 and 2 also number the layers of the MLP
    towers = "image_encoder", "text_encoder"
    return [(f"{tower}.blocks.{block}.{part}",) for tower in towers for block in blocks for part in PARTS]


def renamed(name: str, image: str = "visual.", text: str = "") -> str:
    """OpenAI's name, or one with other prefixes of the two towers."""
    tower, _, block, part = name.split(".", 3)
    return f"{image if tower == 'image_encoder' else text}transformer.resblocks.{block}.{PARTS[part]}"


def swapped(name: str, one: str, other: str) -> str:
    return name.replace(one, "?").replace(other, one).replace("?", other)


@exercise(
    inputs=draw_names,
    outcome=lambda function, name: {name: solved(function(name))},  # so that a difference names what was given
    package=openai_name,
    mistakes={
        "the in_proj of the attention is no layer but a bare tensor, with an underscore: in_proj_weight": (
            lambda name: renamed(name).replace("in_proj_", "in_proj.")
        ),
        "c_fc and c_proj are swapped: c_fc comes first and widens, c_proj brings back": (
            lambda name: swapped(renamed(name), "c_fc", "c_proj")
        ),
        "the two LayerNorms are swapped": lambda name: swapped(renamed(name), "ln_1", "ln_2"),
        "the text tower has no prefix of its own: only the image tower's names start with 'visual.'": (
            lambda name: renamed(name, text="text.")
        ),
        "both towers got the prefix 'visual.': the text tower's names have none": lambda name: renamed(name, text="visual."),
        "'resblocks' is missing: the blocks lie in transformer.resblocks": lambda n: renamed(n).replace(".resblocks", ""),
        "the image tower's names start with 'visual.'": lambda name: renamed(name, image=""),
        "out is still the course's name: OpenAI's is out_proj": lambda name: renamed(name).replace("out_proj", "out"),
    },
)
def block_name(name: str) -> str:
    return renamed(name)


def after_the_token(resize: Callable[[Tensor, int], Tensor]) -> Function:
    """Leaves the class token's row as it is.

    Args:
        resize: the places as a picture, (1, width, old, old), and the new size → (1, width, …).
    """

    def resized_places(places: Tensor, new: int) -> Tensor:
        old = math.isqrt(len(places) - 1)
        grid = places[1:].T.view(1, -1, old, old)
        return torch.cat([places[:1], resize(grid, new).flatten(2)[0].T])

    return resized_places


def bilinear(grid: Tensor, new: int, align_corners: bool = False) -> Tensor:
    return F.interpolate(grid, (new, new), mode="bilinear", align_corners=align_corners)


@exercise(
    inputs=lambda: (torch.randn(1 + 3 * 3, 4), 5),
    mistakes={
        "the class token's row is missing: it has no place in the picture, and comes along as it is": (
            lambda places, new: after_the_token(bilinear)(places, new)[1:]
        ),
        "the class token's row stands at the end: it is the first row": (
            lambda places, new: after_the_token(bilinear)(places, new).roll(-1, dims=0)
        ),
        "the rows were stretched like a line: the places form a grid, so resize in two directions": (
            after_the_token(lambda grid, new: F.interpolate(grid.flatten(2), new * new, mode="linear"))
        ),
        "the class token's row took part: leave it out, and put it back in front": (
            lambda places, new: F.interpolate(places.T[None], 1 + new * new, mode="linear")[0].T
        ),
        "numbers and places are mixed up: `permute` to (1, width, rows, columns), a reshape alone tears": (
            after_the_token(lambda grid, new: bilinear(grid.permute(0, 2, 3, 1).reshape(grid.shape), new))
        ),
        "the new rows are read off channel by channel: `permute` to (1, new, new, width) before the reshape": (
            after_the_token(lambda grid, new: bilinear(grid, new).reshape(1, new * new, -1).mT)
        ),
        "rows and columns are swapped": after_the_token(lambda grid, new: bilinear(grid.mT, new)),
        "the corners were kept in place (`align_corners=True`): a patch has a middle, and middles move": (
            after_the_token(lambda grid, new: bilinear(grid, new, align_corners=True))
        ),
        "each new place copies its nearest old one: take mode='bilinear'": (
            after_the_token(lambda grid, new: F.interpolate(grid, (new, new), mode="nearest"))
        ),
    },
)
def resized_places(places: Tensor, new: int) -> Tensor:
    # By hand: each new row weighs the two nearest old ones, in each direction.
    old = math.isqrt(len(places) - 1)
    centres = ((torch.arange(new) + 0.5) * old / new - 0.5).clamp(0, old - 1)
    weights = (1 - (centres[:, None] - torch.arange(old)).abs()).clamp(min=0)  # (new, old)
    grid = places[1:].view(old, old, -1)
    return torch.cat([places[:1], torch.einsum("ya,xb,abw->yxw", weights, weights, grid).flatten(0, 1)])


def formula(
    token: int = 1, linear: int = 12, pairs: int = 2, embedding: int = 1, embedded_token: int = 0, factor: int = 2
) -> Function:
    """The right formula, or one of which a mistake changes one number."""

    def flops(image_size: int, patch_size: int, width: int, layers: int) -> int:
        patches = (image_size // patch_size) ** 2
        tokens = patches + token
        block = linear * tokens * width**2 + pairs * tokens**2 * width
        return factor * (embedding * (patches + embedded_token) * 3 * patch_size**2 * width + layers * block)

    return flops


@exercise(
    inputs=lambda: [(4 * grid, 4, 8 * int(torch.randint(2, 6, ())), grid - 1) for grid in (2, 3, 5)],
    mistakes={
        "these are multiply-adds: each is two operations, so double them": formula(factor=1),
        "the class token is missing: each block works on patches + 1 tokens": formula(token=0),
        "attention's two products of tokens with tokens are missing: 2 · 2 · L² · width in each block": formula(pairs=0),
        "one of attention's two products is missing: scores are one, the mix of the values is the other": formula(pairs=1),
        "the patch embedding is missing": formula(embedding=0),
        "the class token is no patch: it does not pass the patch embedding": formula(embedded_token=1),
        "the MLP is missing: it has 8 · width² of a block's 12 · width² weights": formula(linear=4),
        "the attention's four matrices are missing: 4 · width² of a block's 12 · width² weights": formula(linear=8),
        "this is for one block: multiply by the number of layers": lambda image, patch, w, n: formula()(image, patch, w, 1),
    },
    tolerance=1e-6,
)
def vit_flops(image_size: int, patch_size: int, width: int, layers: int) -> int:
    # What torch counts while a real tower runs, without memory or time: on the device "meta".
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        VisionTransformer(image_size, patch_size, width, layers, num_heads=2)(torch.zeros(1, 3, image_size, image_size))
    return counter.get_total_flops()


def draw_chances() -> list[tuple[int, float, float]]:
    sizes = 2, 10, int(torch.randint(100, 9_000, ()))
    return [(n, float(5 + 90 * torch.rand(())), float(0.6 + 0.39 * torch.rand(()))) for n in sizes]


@exercise(
    inputs=draw_chances,
    mistakes={
        "there are n − 1 wrong texts, not n": lambda n, s, p: math.log(n * p / (1 - p)) / s,
        "this is the gap of the logits: divide by the scale for that of the cosines": (
            lambda n, s, p: math.log((n - 1) * p / (1 - p))
        ),
        "the scale multiplies the cosines, so the gap is divided by it": lambda n, s, p: s * math.log((n - 1) * p / (1 - p)),
        "the wrong texts are missing: all n − 1 of them share what the right one does not get": (
            lambda n, s, p: math.log(p / (1 - p)) / s
        ),
        "this is the gap for a chance of one half, whatever chance is asked for": lambda n, s, p: math.log(n - 1) / s,
        "it takes the odds, p / (1 − p), not the chance p": lambda n, s, p: math.log((n - 1) * p) / s,
        "n − 1 is on the wrong side: chance / (1 − chance) is exp(scale · gap) divided by n − 1": (
            lambda n, s, p: math.log(p / (1 - p) / (n - 1)) / s
        ),
        "the sign is turned: the right text must be above the others": lambda n, s, p: -math.log((n - 1) * p / (1 - p)) / s,
    },
)
def needed_gap(n: int, scale: float, chance: float) -> float:
    # By halving an interval, from the softmax itself.
    logits = torch.zeros(n, dtype=torch.float64)
    low, high = -100.0, 100.0
    for _ in range(60):
        logits[0] = (low + high) / 2
        low, high = (logits[0].item(), high) if logits.softmax(dim=0)[0] < chance else (low, logits[0].item())
    return low / scale
