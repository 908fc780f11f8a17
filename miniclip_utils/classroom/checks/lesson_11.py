"""Checks of lesson 11: sizes from shapes, attention's three matrices, how far apart cosines must be, FLOPs, a forecast."""

import math
import re
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ...image_encoder import VisionTransformer
from ...model import MiniCLIP, ModelConfig
from ...openai import config_of as package_config_of
from ...openai import openai_name
from . import Function, exercise, solved


def draw_weights() -> list[tuple[dict[str, Tensor]]]:
    """State dicts with OpenAI's names, without memory; no two sizes of a model are equal."""
    return [(weights_of(patch, layers),) for patch, layers in ((32, 2), (14, int(torch.randint(10, 13, ()))))]


def weights_of(patch: int, layers: int) -> dict[str, Tensor]:
    sizes: dict[str, Any] = dict(embed_dim=320, image_size=9 * patch, vit_patch_size=patch, vit_width=384, vit_layers=layers)
    text: dict[str, Any] = dict(vit_num_heads=6, text_width=256, text_layers=layers - 1, text_num_heads=4, text_eos=499)
    with torch.device("meta"):
        model = MiniCLIP(ModelConfig(image_tower="vit", quick_gelu=True, **sizes, **text), 500, 77)
    tensors = {openai_name(name): tensor for name, tensor in model.state_dict().items()}
    projections = {name: tensors[name].T for name in ("visual.proj", "text_projection")}
    return tensors | projections


def changed(**changes: Any) -> Function:
    """The right sizes but for some, each a function of the weights."""
    return lambda tensors: ModelConfig(**asdict(read(tensors)) | {name: change(tensors) for name, change in changes.items()})


def blocks(tensors: dict[str, Tensor], tower: str) -> set[str]:
    return {found[1] for name in tensors if (found := re.match(rf"{tower}transformer\.resblocks\.(\d+)\.", name))}


def read(tensors: dict[str, Tensor]) -> ModelConfig:
    """From other tensors than the package reads them from."""
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    width, embed_dim = shapes["visual.proj"]
    text_width = shapes["ln_final.bias"][0]
    patch = shapes["visual.conv1.weight"][3]
    grid = next(n for n in range(1, 100) if n * n + 1 == shapes["visual.positional_embedding"][0])
    return ModelConfig(
        embed_dim=embed_dim,
        image_size=patch * grid,
        image_tower="vit",
        vit_patch_size=patch,
        vit_width=width,
        vit_layers=len(blocks(tensors, r"visual\.")),
        vit_num_heads=width // 64,
        text_width=text_width,
        text_layers=len(blocks(tensors, "")),
        text_num_heads=text_width // 64,
        text_eos=shapes["token_embedding.weight"][0] - 1,
        quick_gelu=True,
    )


WITH_FRACTIONS = "a size is a float, such as 6.0, and no tensor has such a shape: divide by //"


def sizes(function: Function, tensors: dict[str, Tensor]) -> dict[str, Any] | str:
    found = solved(function(tensors))
    if not isinstance(found, ModelConfig):
        raise TypeError(f"return a ModelConfig: this is of type {type(found).__name__}")
    found = asdict(found)
    return WITH_FRACTIONS if any(isinstance(size, float) for size in found.values()) else found


@exercise(
    inputs=draw_weights,
    outcome=sizes,
    package=package_config_of,
    mistakes={
        "image_size counts patches: it is in pixels, so multiply by the patch size": changed(
            image_size=lambda t: math.isqrt(len(t["visual.positional_embedding"]) - 1)
        ),
        "image_size is the number of positions: they form a square, with one more for the class token": changed(
            image_size=lambda t: len(t["visual.positional_embedding"]) * t["visual.conv1.weight"].shape[-1]
        ),
        "vit_layers counts the blocks of both towers: only the image tower's names start with 'visual.'": changed(
            vit_layers=lambda t: sum(name.endswith("in_proj_weight") for name in t)
        ),
        "text_layers counts the blocks of both towers: subtract the image tower's": changed(
            text_layers=lambda t: sum(name.endswith("in_proj_weight") for name in t)
        ),
        "both numbers of layers are one too small: blocks are counted from 0": changed(
            vit_layers=lambda t: len(blocks(t, r"visual\.")) - 1, text_layers=lambda t: len(blocks(t, "")) - 1
        ),
        "embed_dim is the width of a tower: a projection leads *to* embed_dim, and OpenAI's are (in, out)": changed(
            embed_dim=lambda t: t["text_projection"].shape[0]
        ),
        "embed_dim is the width of the image tower: OpenAI's projections are (in, out)": changed(
            embed_dim=lambda t: t["visual.proj"].shape[0]
        ),
        "text_eos is the size of the vocabulary: numbers start at 0, so its last is one less": changed(
            text_eos=lambda t: len(t["token_embedding.weight"])
        ),
        "text_width is the image tower's": changed(text_width=lambda t: len(t["visual.class_embedding"])),
        "text_num_heads is the image tower's: a head has 64 dimensions in both": changed(
            text_num_heads=lambda t: len(t["visual.class_embedding"]) // 64
        ),
        WITH_FRACTIONS: changed(vit_num_heads=lambda t: len(t["visual.class_embedding"]) / 64),
        "image_tower is still 'resnet', ModelConfig's default": changed(image_tower=lambda t: "resnet"),
        "quick_gelu is still False, ModelConfig's default": changed(quick_gelu=lambda t: False),
        "text_eos is still None, ModelConfig's default: that is a tower with [CLS]": changed(text_eos=lambda t: None),
    },
)
def config_of(tensors: dict[str, Tensor]) -> ModelConfig:
    return read(tensors)


def draw_parts() -> list[tuple[dict[str, Tensor]]]:
    """Three matrices of one block, and its three biases."""
    names = ["q_proj", "k_proj", "v_proj"]
    orders = [[names[k] for k in torch.randperm(3).tolist()] for _ in range(2)] + [["k_proj", "v_proj", "q_proj"]]
    shapes = [(6, 6), (6,), (4, 4)]
    return [({n: torch.randn(shape) for n in order},) for order, shape in zip(orders, shapes, strict=True)]


def stacked(*letters: str) -> Function:
    return lambda parts: torch.cat([parts[f"{letter}_proj"] for letter in letters])


@exercise(
    inputs=draw_parts,
    mistakes={
        "the order is k, q, v, which is that of the alphabet: the block expects q first": stacked("k", "q", "v"),
        "the order is k, v, q": stacked("k", "v", "q"),
        "the order is v, k, q: turned round": stacked("v", "k", "q"),
        "the order is q, v, k": stacked("q", "v", "k"),
        "the order is v, q, k": stacked("v", "q", "k"),
        "the order is the one that the file happens to have: take the three by name": lambda parts: torch.cat(
            list(parts.values())
        ),
        "the three are stacked in a new dimension: put them one below the other": lambda parts: torch.stack(
            [parts["q_proj"], parts["k_proj"], parts["v_proj"]]
        ),
        "the three are side by side: put them one below the other": lambda parts: torch.cat(
            [parts["q_proj"], parts["k_proj"], parts["v_proj"]], dim=-1
        ),
        "the matrices are transposed: they are (out, in) already": lambda parts: torch.cat(
            [parts[name].mT if parts[name].ndim == 2 else parts[name] for name in ("q_proj", "k_proj", "v_proj")]
        ),
    },
)
def qkv(parts: dict[str, Tensor]) -> Tensor:
    size = len(parts["q_proj"])
    result = parts["q_proj"].new_empty((3 * size, *parts["q_proj"].shape[1:]))
    for row, name in enumerate(("q_proj", "k_proj", "v_proj")):
        result[row * size : (row + 1) * size] = parts[name]
    return result


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


def draw_probabilitys() -> list[tuple[int, float, float]]:
    sizes = 2, 10, int(torch.randint(100, 9_000, ()))
    return [(n, float(5 + 90 * torch.rand(())), float(0.6 + 0.39 * torch.rand(()))) for n in sizes]


@exercise(
    inputs=draw_probabilitys,
    mistakes={
        "there are n − 1 wrong texts, not n": lambda n, s, p: math.log(n * p / (1 - p)) / s,
        "this is the gap of the logits: divide by the scale for that of the cosines": (
            lambda n, s, p: math.log((n - 1) * p / (1 - p))
        ),
        "the scale multiplies the cosines, so the gap is divided by it": lambda n, s, p: s * math.log((n - 1) * p / (1 - p)),
        "the wrong texts are missing: all n − 1 of them share what the right one does not get": (
            lambda n, s, p: math.log(p / (1 - p)) / s
        ),
        "this is the gap for a probability of one half, whatever probability is asked for": lambda n, s, p: (
            math.log(n - 1) / s
        ),
        "it takes the odds, p / (1 − p), not the probability p": lambda n, s, p: math.log((n - 1) * p) / s,
        "n − 1 is on the wrong side: probability / (1 − probability) is exp(scale · gap) divided by n − 1": (
            lambda n, s, p: math.log(p / (1 - p) / (n - 1)) / s
        ),
        "the sign is turned: the right text must be above the others": lambda n, s, p: -math.log((n - 1) * p / (1 - p)) / s,
    },
)
def needed_gap(n: int, scale: float, probability: float) -> float:
    # By halving an interval, from the softmax itself.
    logits = torch.zeros(n, dtype=torch.float64)
    low, high = -100.0, 100.0
    for _ in range(60):
        logits[0] = (low + high) / 2
        low, high = (logits[0].item(), high) if logits.softmax(dim=0)[0] < probability else (low, logits[0].item())
    return low / scale


def draw_runs() -> list[tuple[Tensor, Tensor, float]]:
    runs = []
    for points in (3, 5):
        compute = 10 ** (20 + 2 * torch.rand(points, dtype=torch.float64)).sort().values
        error = 0.3 * (compute / 1e21) ** -0.15 * torch.exp(0.05 * torch.randn(points, dtype=torch.float64))
        runs.append((compute, error, float(10 ** (22 + torch.rand(())))))
    return runs


def fitted(x: Function, y: Function, back: Function) -> Function:
    """A least-squares line through some function of compute and of error, read off at the new compute."""

    def forecast(compute: Tensor, error: Tensor, new_compute: float) -> float:
        new = torch.tensor(new_compute, dtype=torch.float64)
        a, b = x(compute), y(error)
        slope = ((a - a.mean()) * (b - b.mean())).sum() / (a - a.mean()).square().sum()
        return back(b.mean() + slope * (x(new) - a.mean())).item()

    return forecast


def same(value: Tensor) -> Tensor:
    return value


def last_two(compute: Tensor, error: Tensor, new_compute: float) -> float:
    return fitted(torch.log, torch.log, torch.exp)(compute[-2:], error[-2:], new_compute)


def first_and_last(compute: Tensor, error: Tensor, new_compute: float) -> float:
    return fitted(torch.log, torch.log, torch.exp)(compute[[0, -1]], error[[0, -1]], new_compute)


def accuracy_law(compute: Tensor, error: Tensor, new_compute: float) -> float:
    return 1 - fitted(torch.log, torch.log, torch.exp)(compute, 1 - error, new_compute)


@exercise(
    inputs=draw_runs,
    mistakes={
        "this is the logarithm of the error: take exp at the end": fitted(torch.log, torch.log, same),
        "this is the base-10 logarithm of the error: raise 10 to it at the end": fitted(torch.log10, torch.log10, same),
        "the logarithms have two bases: the one that you take must be the one that you undo": fitted(
            torch.log10, torch.log10, torch.exp
        ),
        "only compute has a logarithm here: a power law is a line when both have": fitted(torch.log, same, same),
        "only the error has a logarithm here: a power law is a line when both have": fitted(same, torch.log, torch.exp),
        "this is a line without logarithms: a power law is a line in the logarithms of both": fitted(same, same, same),
        "the line goes through the last two points only: fit all of them": last_two,
        "the line goes through the first and the last point: fit all of them": first_and_last,
        "the law was fitted to the accuracy: it holds for the error": accuracy_law,
        "this is the accuracy: return the error": lambda c, e, n: 1 - fitted(torch.log, torch.log, torch.exp)(c, e, n),
    },
    keeps_arguments=True,
)
def forecast(compute: Tensor, error: Tensor, new_compute: float) -> float:
    columns = torch.stack([compute.log(), torch.ones_like(compute)], dim=1)
    slope, intercept = torch.linalg.lstsq(columns, error.log()[:, None]).solution[:, 0].tolist()
    return math.exp(intercept) * new_compute**slope
