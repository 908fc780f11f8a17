"""Checks of lesson 08: QuickGELU, OpenAI's names, what a larger picture needs, FLOPs, and how far apart cosines must be."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ...image_encoder import VisionTransformer
from .before import diagnose, exercise, number, solved


@exercise
def quick_gelu(answer: Callable[[Tensor], Tensor]) -> str | None:
    x = 2 * torch.randn(4, 6)
    gate = 1 / (1 + torch.exp(-1.702 * x))
    return diagnose(
        answer(x.clone()),
        x - x / (1 + torch.exp(1.702 * x)),  # x times (1 minus the chance of the opposite)
        {
            "this is GELU itself: near, but not what OpenAI's weights were trained with": F.gelu(x),
            "this is GELU by the tanh formula: OpenAI's code has the sigmoid": F.gelu(x, approximate="tanh"),
            "the 1.702 is missing: x · sigmoid(x) is SiLU": F.silu(x),
            "this is only the gate, between 0 and 1: multiply x with it": gate,
            "the 1.702 stands outside: it belongs inside the sigmoid": 1.702 * F.silu(x),
            "the 1.702 counts twice: x itself is not scaled": 1.702 * x * gate,
            "this is ReLU, with a corner at 0": F.relu(x),
            "the sign inside the sigmoid is turned: large x must pass": x - x * gate,
        },
    )


@exercise
def block_name(answer: Callable[[str], str]) -> str | None:
    blocks = 0, 2, int(torch.randint(3, 12, ()))  # 0 and 2 also number the layers of the MLP
    parts = {
        "norm_1.weight": "ln_1.weight",
        "attention.qkv.weight": "attn.in_proj_weight",
        "attention.qkv.bias": "attn.in_proj_bias",
        "attention.out.weight": "attn.out_proj.weight",
        "norm_2.bias": "ln_2.bias",
        "mlp.0.weight": "mlp.c_fc.weight",
        "mlp.2.bias": "mlp.c_proj.bias",
    }
    towers = {"image_encoder.blocks": "visual.transformer.resblocks", "text_encoder.blocks": "transformer.resblocks"}

    def expected(tower: str, block: int, part: str) -> str:
        return f"{towers[tower]}.{block}.{parts[part]}"

    # A right name → what the mistake makes of it.
    mistakes: dict[str, Callable[[str], str]] = {
        "the in_proj of the attention is no layer but a bare tensor, with an underscore: in_proj_weight": (
            lambda name: name.replace("in_proj_", "in_proj.")
        ),
        "c_fc and c_proj are swapped: c_fc comes first and widens, c_proj brings back": (
            lambda name: name.replace("c_fc", "?").replace("c_proj", "c_fc").replace("?", "c_proj")
        ),
        "the two LayerNorms are swapped": (
            lambda name: name.replace("ln_1", "?").replace("ln_2", "ln_1").replace("?", "ln_2")
        ),
        "the text tower has no prefix of its own: only the image tower's names start with 'visual.'": (
            lambda name: name if name.startswith("visual") else f"text.{name}"
        ),
        "both towers got the prefix 'visual.': the text tower's names have none": (
            lambda name: name if name.startswith("visual") else f"visual.{name}"
        ),
        "'resblocks' is missing: the blocks lie in transformer.resblocks": lambda name: name.replace(".resblocks", ""),
        "the image tower's names start with 'visual.'": lambda name: name.removeprefix("visual."),
        "out is still the course's name: OpenAI's is out_proj": lambda name: name.replace("out_proj", "out"),
    }
    cases = [(tower, block, part) for tower in towers for block in blocks for part in parts]
    right = [expected(*case) for case in cases]
    got = [solved(answer(f"{tower}.{block}.{part}")) for tower, block, part in cases]
    if other := [name for name in got if not isinstance(name, str)]:
        return f"it is of type {type(other[0]).__name__}: return a name, which is a string"
    if got == right:
        return None
    for message, mistake in mistakes.items():
        if got == [mistake(name) for name in right]:
            return message
    (tower, block, part), name = next((case, name) for case, name in zip(cases, got, strict=True) if name != expected(*case))
    return f"'{tower}.{block}.{part}' became {name!r}, and should be {expected(tower, block, part)!r}"


@exercise
def resized_places(answer: Callable[[Tensor, int], Tensor]) -> str | None:
    old, new, width = 3, 5, 4
    places = torch.randn(1 + old * old, width)
    # The reference weighs the two nearest old rows for each new one by hand, in each direction.
    centres = ((torch.arange(new) + 0.5) * old / new - 0.5).clamp(0, old - 1)
    weights = (1 - (centres[:, None] - torch.arange(old)).abs()).clamp(min=0)  # (new, old)
    grid = places[1:].view(old, old, width)
    resized = torch.einsum("ya,xb,abw->yxw", weights, weights, grid).reshape(-1, width)

    def interpolated(values: Tensor, size: tuple[int, ...], **options: object) -> Tensor:
        mode = "bilinear" if len(size) == 2 else "linear"
        return F.interpolate(values, size, **{"mode": mode, **options}).flatten(2)[0].T  # type: ignore[arg-type]

    channels_first = grid.permute(2, 0, 1)[None]
    torn = interpolated(places[1:].reshape(1, width, old, old), (new, new))
    return diagnose(
        answer(places.clone(), new),
        torch.cat([places[:1], resized]),
        {
            "the class token's row is missing: it has no place in the picture, and comes along as it is": resized,
            "the class token's row stands at the end: it is the first row": torch.cat([resized, places[:1]]),
            "the rows were stretched like a line: the places form a grid, so resize in two directions": torch.cat(
                [places[:1], interpolated(places[1:].T[None], (new * new,))]
            ),
            "the class token's row took part: leave it out, and put it back in front": interpolated(
                places.T[None], (1 + new * new,)
            ),
            "numbers and places are mixed up: `permute` to (1, width, rows, columns), a reshape alone tears": torch.cat(
                [places[:1], torn]
            ),
            "the new rows are read off channel by channel: `permute` to (1, new, new, width) before the reshape": torch.cat(
                [places[:1], interpolated(channels_first, (new, new)).T.reshape(-1, width)]
            ),
            "rows and columns are swapped": torch.cat(
                [places[:1], resized.view(new, new, width).transpose(0, 1).flatten(0, 1)]
            ),
            "the corners were kept in place (`align_corners=True`): a patch has a middle, and middles move": torch.cat(
                [places[:1], interpolated(channels_first, (new, new), align_corners=True)]
            ),
            "each new place copies its nearest old one: take mode='bilinear'": torch.cat(
                [places[:1], interpolated(channels_first, (new, new), mode="nearest")]
            ),
        },
    )


@exercise
def vit_flops(answer: Callable[[int, int, int, int], int]) -> str | None:
    cases = [(4 * grid, 4, 8 * int(torch.randint(2, 6, ())), grid - 1) for grid in (2, 3, 5)]

    def counted(image_size: int, patch_size: int, width: int, layers: int) -> float:
        """What torch counts while a real tower runs, without memory or time: on the device "meta"."""
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            VisionTransformer(image_size, patch_size, width, layers, num_heads=2)(torch.zeros(1, 3, image_size, image_size))
        return float(counter.get_total_flops())

    def each(function: Callable[[int, int, int, int], float]) -> Tensor:
        return torch.tensor([number(function(*case)) for case in cases], dtype=torch.float64)

    def formula(
        token: int = 1,
        linear: int = 12,
        pairs: int = 2,
        embedding: int = 1,
        embedded_token: int = 0,
        once: bool = False,
        factor: int = 2,
    ) -> Tensor:
        def flops(image_size: int, patch_size: int, width: int, layers: int) -> float:
            patches = (image_size // patch_size) ** 2
            tokens = patches + token
            block = linear * tokens * width**2 + pairs * tokens**2 * width
            embedded = embedding * (patches + embedded_token) * 3 * patch_size**2 * width
            return factor * (embedded + (1 if once else layers) * block)

        return each(flops)

    return diagnose(
        each(answer),
        each(counted),
        {
            "these are multiply-adds: each is two operations, so double them": formula(factor=1),
            "the class token is missing: each block works on patches + 1 tokens": formula(token=0),
            "attention's two products of tokens with tokens are missing: 2 · 2 · L² · width in each block": formula(pairs=0),
            "one of attention's two products is missing: scores are one, the mix of the values is the other": formula(
                pairs=1
            ),
            "the patch embedding is missing": formula(embedding=0),
            "the class token is no patch: it does not pass the patch embedding": formula(embedded_token=1),
            "the MLP is missing: it has 8 · width² of a block's 12 · width² weights": formula(linear=4),
            "the attention's four matrices are missing: 4 · width² of a block's 12 · width² weights": formula(linear=8),
            "this is for one block: multiply by the number of layers": formula(once=True),
        },
        tolerance=1e-6,
    )


@exercise
def needed_gap(answer: Callable[[int, float, float], float]) -> str | None:
    cases = [
        (n, float(5 + 90 * torch.rand(())), float(0.6 + 0.39 * torch.rand(())))
        for n in (2, 10, int(torch.randint(100, 9_000, ())))
    ]

    def searched(n: int, scale: float, chance: float) -> float:
        """By halving an interval, from the softmax itself."""
        low, high = 0.0, 10.0
        for _ in range(60):
            middle = (low + high) / 2
            logits = torch.zeros(n, dtype=torch.float64)
            logits[0] = scale * middle
            low, high = (middle, high) if logits.softmax(dim=0)[0] < chance else (low, middle)
        return low

    def each(function: Callable[[int, float, float], float]) -> Tensor:
        return torch.tensor([number(function(*case)) for case in cases], dtype=torch.float64)

    return diagnose(
        each(answer),
        each(searched),
        {
            "there are n − 1 wrong texts, not n": each(lambda n, s, p: math.log(n * p / (1 - p)) / s),
            "this is the gap of the logits: divide by the scale for that of the cosines": each(
                lambda n, s, p: math.log((n - 1) * p / (1 - p))
            ),
            "the scale multiplies the cosines, so the gap is divided by it": each(
                lambda n, s, p: math.log((n - 1) * p / (1 - p)) * s
            ),
            "the wrong texts are missing: all n − 1 of them share what the right one does not get": each(
                lambda n, s, p: math.log(p / (1 - p)) / s
            ),
            "this is the gap for a chance of one half, whatever chance is asked for": each(
                lambda n, s, p: math.log(max(n - 1, 1)) / s
            ),
            "it takes the odds, p / (1 − p), not the chance p": each(lambda n, s, p: math.log((n - 1) * p) / s),
            "n − 1 is on the wrong side: chance / (1 − chance) is exp(scale · gap) divided by n − 1": each(
                lambda n, s, p: math.log(p / (1 - p) / (n - 1)) / s
            ),
            "the sign is turned: the right text must be above the others": each(
                lambda n, s, p: -math.log((n - 1) * p / (1 - p)) / s
            ),
        },
    )
