"""Checks of lesson 02: BatchNorm, the residual block, the ResNet, receptive fields, one vector from a feature map."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import image_encoder
from . import Function, NotSolved, examined, exercise, solved


def draw_activations() -> dict[str, tuple[Tensor, Tensor, Tensor, bool, str]]:
    x = 2 * torch.randn(4, 3, 5, 2) + torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1)
    many = 2 * torch.randn(64, 3, 16, 16) + torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1)  # so that n and n − 1 are alike
    mean, var = torch.randn(3), torch.rand(3) + 0.5
    return {
        "with training=True": (x, mean, var, True, "output"),
        "with training=False": (x, mean, var, False, "output"),
        "where the variance is tiny": (x / 500, mean, var, True, "output"),  # not much larger than eps
        "after a batch in evaluation": (many, mean, var, False, "running"),
        "after a batch in training": (many, mean, var, True, "running"),
    }


def output_or_running(function: Function, x: Tensor, mean: Tensor, var: Tensor, training: bool, what: str) -> Any:
    """What BatchNorm returns, or its running averages after it with momentum 0.2."""
    if what == "output":
        return solved(function(x, mean, var, training))
    solved(function(x, mean, var, training, 0.2))
    return {"running_mean": mean, "running_var": var}


def from_statistics(formula: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Function:
    """A formula of x, with the mean and the variance that BatchNorm takes."""

    def normalize(x: Tensor, mean: Tensor, var: Tensor, training: bool, momentum: float = 0.1) -> Tensor:
        if training:
            return formula(x, x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True))
        return formula(x, mean.view(3, 1, 1), var.view(3, 1, 1))

    return normalize


def over(*dims: int, correction: int = 0) -> Function:
    """Right in evaluation; in training, with the statistics over some dimensions."""
    return lambda x, mean, var, training, momentum=0.1: (
        (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=correction, keepdim=True) + 1e-5).sqrt()
        if training
        else F.batch_norm(x, mean, var)
    )


def updated(rule: Callable[[Tensor, Tensor, float], Tensor], always: bool = False) -> Function:
    """The right output, and running averages by a rule of the old average, the batch's own and the momentum.

    Args:
        always: in evaluation too.
    """

    def normalize(x: Tensor, mean: Tensor, var: Tensor, training: bool, momentum: float = 0.1) -> Tensor:
        out = F.batch_norm(x, mean.clone(), var.clone(), training=training)
        if training or always:
            mean.copy_(rule(mean, x.mean((0, 2, 3)), momentum))
            var.copy_(rule(var, x.var((0, 2, 3)), momentum))
        return out

    return normalize


@exercise(
    inputs=draw_activations,
    mistakes={
        "the running averages have changed: they change in training only": (
            updated(lambda old, new, momentum: (1 - momentum) * old + momentum * new, always=True)
        ),
        "momentum weighs the wrong one: it is the weight of the new batch, and the old average keeps 1 − momentum": (
            updated(lambda old, new, momentum: momentum * old + (1 - momentum) * new)
        ),
        "the running averages are as before: change the tensors themselves, since `running_mean = …` only gives the name "
        "to a new tensor": updated(lambda old, new, momentum: old),
        "the running averages are those of the last batch alone": updated(lambda old, new, momentum: new),
        "the old average keeps its full weight: the two weights sum to 1": (
            updated(lambda old, new, momentum: old + momentum * new)
        ),
        "the new batch gets its full weight: the two weights sum to 1": (
            updated(lambda old, new, momentum: (1 - momentum) * old + new)
        ),
        "both have the same weight: the new batch has the weight momentum": updated(
            lambda old, new, momentum: (old + new) / 2
        ),
        "these are the running statistics: in training, use the batch's own": (
            lambda x, m, v, train, momentum=0.1: F.batch_norm(x, m, v)
        ),
        "these are the batch's own statistics: use the running ones, which do not depend on an image's neighbours": (
            lambda x, m, v, train, momentum=0.1: F.batch_norm(x, None, None, training=True)
        ),
        "each image is normalised by itself: one mean for a channel, over the images too, dim=(0, 2, 3)": over(2, 3),
        "each position has its own mean: a channel has one for all its positions, dim=(0, 2, 3)": over(0),
        "each image is normalised over all channels, as LayerNorm does: BatchNorm keeps channels apart": over(1, 2, 3),
        "all channels share one mean: BatchNorm keeps channels apart, dim=(0, 2, 3)": over(0, 1, 2, 3),
        "the variance divides by n − 1: BatchNorm divides by n, correction=0": over(0, 2, 3, correction=1),
        "the mean is not subtracted": from_statistics(lambda x, m, v: x / v.sqrt()),
        "you divide by the variance: divide by its square root": from_statistics(lambda x, m, v: (x - m) / v),
        "the mean is subtracted, but nothing is divided by the standard deviation": from_statistics(lambda x, m, v: x - m),
        "nothing has changed: this is x itself": lambda x, m, v, train, momentum=0.1: x,
        "eps is missing, and a channel that is the same everywhere would give 0/0": (
            from_statistics(lambda x, m, v: (x - m) / v.sqrt())
        ),
        "eps is added to the standard deviation: it belongs under the root": (
            from_statistics(lambda x, m, v: (x - m) / (v.sqrt() + 1e-5))
        ),
    },
    outcome=output_or_running,
    tolerance=1e-3,
)
def batch_norm(x: Tensor, running_mean: Tensor, running_var: Tensor, training: bool, momentum: float = 0.1) -> Tensor:
    return F.batch_norm(x, running_mean, running_var, training=training, momentum=momentum)


def built(answer: Function, *sizes: Any) -> nn.Module:
    """An answer's network in double precision, so that rounding tells nobody apart, with weights by their names.

    Raises:
        NotSolved: its `__init__` is still open.
    """
    module = solved(answer(*sizes))
    if isinstance(module, nn.Module) and "_parameters" not in vars(module):
        raise NotSolved
    generator = torch.Generator().manual_seed(0)
    weights = module.double().state_dict()
    for name in sorted(weights):
        if weights[name].is_floating_point():
            drawn = torch.rand(weights[name].shape, generator=generator, dtype=torch.float64)
            weights[name].copy_(drawn + 0.5 if name.endswith("running_var") else drawn - 0.4)
    return module


def names_and_shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(parameter.shape) for name, parameter in module.named_parameters()}


def passed(module: nn.Module, x: Tensor) -> dict[str, Any]:
    """What comes out in evaluation and in training, and the gradient that reaches the input."""
    with torch.no_grad():
        in_evaluation = solved(module.eval()(x.clone()))
    if not isinstance(in_evaluation, Tensor):
        return {"in evaluation": in_evaluation}
    x = x.clone().requires_grad_()
    in_training = module.train()(x)
    (gradient,) = torch.autograd.grad(in_training.square().sum(), x)
    return {"in evaluation": in_evaluation, "in training": in_training, "the gradient of x": gradient}


def block(residual: str = "c1 pool n1 relu c2 n2", shortcut: str = "pool short", end: str = "relu") -> type[nn.Module]:
    """The names of the parts that x passes on both ways, and of those after the sum."""

    class Block(image_encoder.ResidualBlock):  # its parts, which the stub gives
        def forward(self, x: Tensor) -> Tensor:
            parts = {"c1": self.conv_1, "n1": self.norm_1, "c2": self.conv_2, "n2": self.norm_2}
            parts |= {"short": self.shortcut, "pool": self.pool}
            functions: dict[str, Any] = {**parts, "relu": F.relu, "zero": torch.zeros_like}

            def walk(x: Tensor, way: str) -> Tensor:
                for part in way.split():
                    x = functions[part](x)
                return x

            return walk(walk(x, residual) + walk(x, shortcut), end)

    return Block


@exercise(
    inputs=lambda: [
        (2, 3, True, torch.randn(4, 2, 6, 6, dtype=torch.float64)),
        (3, 3, False, torch.randn(4, 3, 5, 5, dtype=torch.float64)),
    ],
    outcome=lambda answer, channels, width, pool, x: passed(built(answer, channels, width, pool), x),
    mistakes={
        "the shortcut is not added: this is two convolutions and no residual block": block(shortcut="pool short zero"),
        "neither the shortcut nor the last ReLU is there": block(shortcut="pool short zero", end=""),
        "the ReLU comes before the sum: a residual that cannot be negative can only add": (
            block("c1 pool n1 relu c2 n2 relu", end="")
        ),
        "each summand has its own ReLU: add first, then one ReLU": (
            block("c1 pool n1 relu c2 n2 relu", "pool short relu", "")
        ),
        "the residual has a ReLU of its own before the sum: a residual that cannot be negative can only add": (
            block("c1 pool n1 relu c2 n2 relu")
        ),
        "the last ReLU is missing: it follows the sum": block(end=""),
        "the ReLU between the convolutions is missing: two linear layers in a row are one": block("c1 pool n1 c2 n2"),
        "norm_1 is missing": block("c1 pool relu c2 n2"),
        "norm_2 is missing": block("c1 pool n1 relu c2"),
        "norm_1 and norm_2 are exchanged: each follows the convolution of its number": block("c1 pool n2 relu c2 n1"),
        "you pool before conv_1: pool its output, so that it still reads all pixels": block("pool c1 n1 relu c2 n2"),
        "you pool after norm_1: pool before it, so that there is a quarter as much to normalise": (
            block("c1 n1 pool relu c2 n2")
        ),
        "the shortcut pools after its 1×1 convolution: pool first, which leaves it a quarter of the work": (
            block(shortcut="short pool")
        ),
        "the shortcut does not pool, so that the two sizes differ": block(shortcut="short"),
        "the shortcut leaves out `shortcut`, so that the two numbers of channels differ": block(shortcut="pool"),
    },
    package=image_encoder.ResidualBlock,
)
def ResidualBlock(in_channels: int, out_channels: int, pool: bool = False) -> nn.Module:
    return block()(in_channels, out_channels, pool)


def average(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def resnet(
    pools: Callable[[int], bool] = lambda index: index == 0,
    count: Callable[[int], int] = lambda depth: depth,
    carried: bool = True,
    container: Callable[..., Any] = nn.Sequential,
    stem: Callable[[int], nn.Module] = lambda width: nn.Conv2d(3, width, 2, bias=False),
    after_stem: Function = F.relu,
    end: Function = average,
    width_of: Callable[[int, tuple[int, ...]], int] = lambda stem_width, widths: widths[-1],
    without_init: bool = False,
) -> Function:
    """A ResNet, right but for what is chosen otherwise."""

    class Network(nn.Module):
        def __init__(self, stem_width: int, widths: tuple[int, ...], blocks: tuple[int, ...]):
            if not without_init:
                super().__init__()
            self.width = width_of(stem_width, widths)
            self.stem = stem(stem_width)
            stages, channels = [], stem_width
            for width, depth in zip(widths, blocks, strict=True):
                made, reads = [], channels
                for index in range(count(depth)):
                    made.append(block()(reads, width, pools(index)))
                    reads = width
                stages.append(nn.Sequential(*made))
                channels = width if carried else channels
            self.stages = container(*stages)

        def forward(self, images: Tensor) -> Tensor:
            x = after_stem(self.stem(images))
            for stage in self.stages:
                x = stage(x)
            return end(x)

    return lambda stem_width, widths, blocks: Network(stem_width, widths, blocks)


def names_map_and_features(
    answer: Function, stem_width: int, widths: tuple[int, ...], blocks: tuple[int, ...], images: Tensor
) -> Any:
    module: Any = built(answer, stem_width, widths, blocks)
    found = {"parameters": names_and_shapes(module), "width": module.width, **passed(module, images)}
    with torch.no_grad():
        found["stages of the stem's output"] = module.stages(module.stem(images).relu())
    return found


@exercise(
    inputs=lambda: [
        (4, (6, 8), (2, 1), torch.randn(3, 3, 16, 16, dtype=torch.float64)),
        (2, (3, 3, 5), (1, 3, 2), torch.randn(2, 3, 20, 24, dtype=torch.float64)),
    ],
    outcome=names_map_and_features,
    mistakes={
        "every block pools: only the first of a stage halves height and width": resnet(pools=lambda index: True),
        "no block pools: the first of each stage halves height and width": resnet(pools=lambda index: False),
        "`blocks` is not used: each stage has one block": resnet(count=lambda depth: 1),
        "each stage has one block too many: the first one counts too": resnet(count=lambda depth: depth + 1),
        "the channels are not carried on: a stage reads what the one before it gave": resnet(carried=False),
        "the ReLU after the stem is missing": resnet(after_stem=lambda x: x),
        "the stem has a bias: it has none": resnet(stem=lambda width: nn.Conv2d(3, width, 2)),
        "the stem pads: it has no padding, so that 32 pixels become 31": (
            resnet(stem=lambda width: nn.Conv2d(3, width, 2, padding=1, bias=False))
        ),
        "the stem's kernel is 3×3: it is 2×2": resnet(stem=lambda width: nn.Conv2d(3, width, 3, bias=False)),
        "this is the sum over the positions: take their mean, which does not grow with the image": (
            resnet(end=lambda x: x.sum(dim=(2, 3)))
        ),
        "this is the largest value of each channel: take the mean over the positions": (
            resnet(end=lambda x: x.amax(dim=(2, 3)))
        ),
        "this is the feature map: its mean over the positions is still to come": resnet(end=lambda x: x),
        "the mean is over the channels, dim=1: average over height and width, dim=(2, 3)": resnet(
            end=lambda x: x.mean(dim=1)
        ),
        "height and width are still there, with size 1: the result is (N, C), so keepdim=False": (
            resnet(end=lambda x: x.mean(dim=(2, 3), keepdim=True))
        ),
        "the feature map is flattened: take the mean over the positions": resnet(end=lambda x: x.flatten(1)),
        "`width` is that of the first stage: it is the dimension of what comes out, the last one": (
            resnet(width_of=lambda stem_width, widths: widths[0])
        ),
        "`width` is that of the stem: it is the dimension of what comes out, the last of widths": (
            resnet(width_of=lambda stem_width, widths: stem_width)
        ),
        "the stages are a plain list, whose parameters nobody finds: make it an nn.Sequential": (
            resnet(container=lambda *stages: list(stages))
        ),
        "the stages are an nn.ModuleList, which cannot be called: make it an nn.Sequential": (
            resnet(container=lambda *stages: nn.ModuleList(stages))
        ),
        "super().__init__() is missing, the first line of any module": resnet(without_init=True),
    },
    package=image_encoder.ResNet,
)
def ResNet(stem_width: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> nn.Module:
    return resnet()(stem_width, widths, blocks)


def walk(grow: Callable[[int, int, int], int], start: int = 1) -> Function:
    """Layer by layer, with the right distance of a layer's inputs.

    Args:
        grow: kernel size, stride, distance of the inputs → what the layer adds to the size.
    """

    def size(layers: list[tuple[int, int]]) -> int:
        strides = [stride for _, stride in layers]
        return start + sum(grow(k, s, math.prod(strides[:i])) for i, (k, s) in enumerate(layers))

    return size


def scaled_forwards(layers: list[tuple[int, int]]) -> int:
    size = 1
    for kernel_size, stride in layers:
        size = size * stride + kernel_size - 1
    return size


def strides_added(layers: list[tuple[int, int]]) -> int:
    size, step = 1, 1
    for kernel_size, stride in layers:
        size += (kernel_size - 1) * step
        step += stride - 1
    return size


@exercise(
    inputs=lambda: [
        ([(3, 1)],),
        ([(3, 1), (3, 1)],),
        ([(2, 1), (3, 1), (2, 2), (3, 1)],),
        ([(5, 2), (3, 3), (3, 2), (2, 1)],),
    ],
    mistakes={
        "the strides are left out: after a stride of 2, neighbours lie 2 pixels apart": walk(lambda k, s, d: k - 1),
        "a layer's own stride is counted too early: it spreads only the layers after it": (
            walk(lambda k, s, d: (k - 1) * d * s)
        ),
        "only a layer's own stride is counted: the strides of all layers before it multiply": (
            walk(lambda k, s, d: (k - 1) * s)
        ),
        "the strides are added up: they multiply": strides_added,
        "a stride spreads the inputs of the layers after it, not the pixels seen so far": scaled_forwards,
        "the whole kernel is added each time: its first position was there already, so add kernel_size − 1": (
            walk(lambda k, s, d: k * d, start=0)
        ),
        "the whole kernel is added each time: a kernel of size k reaches over k − 1 steps": walk(lambda k, s, d: k * d),
        "you start from 0: one value sees at least itself, so start from 1": walk(lambda k, s, d: (k - 1) * d, start=0),
        "the kernels are multiplied: each adds (kernel_size − 1) times the distance of its inputs": (
            lambda layers: math.prod(kernel_size for kernel_size, _ in layers)
        ),
    },
)
def receptive_field(layers: list[tuple[int, int]]) -> int:
    # How many inputs have a gradient from one output in the middle.
    signal = torch.ones(1, 1, 999, requires_grad=True)
    out: Tensor = signal
    for kernel_size, stride in layers:
        out = F.conv1d(out, torch.ones(1, 1, kernel_size), stride=stride)
    (gradient,) = torch.autograd.grad(out[0, 0, out.shape[-1] // 2], signal)
    return int(gradient.count_nonzero())


def largest(feature_map: Tensor) -> Tensor:
    return feature_map.amax(dim=(2, 3))


def ignored_position(answer: Function, feature_map: Tensor) -> bool:
    """Whether there is a position that the vector of the first image never depends on."""
    before = answer(feature_map.clone())[0]
    for row in range(feature_map.shape[2]):
        for column in range(feature_map.shape[3]):
            changed = feature_map.clone()
            changed[0, ::2, row, column], changed[0, 1::2, row, column] = 10, 0  # a largest and a smallest value
            if torch.allclose(answer(changed)[0], before):
                return True
    return False


@examined(
    right=largest,
    mistakes={
        "this is the mean, which the tower has already": average,
        "this is the mean, scaled or shifted": lambda x: x.sum(dim=(2, 3)),
        "all channels get the same number": lambda x: x.amax(dim=(1, 2, 3))[:, None].expand(-1, 16),
        "a single image gives the shape (16,)": lambda x: largest(x).squeeze(),
        "its shape is (6, 16, 1, 1), and should be (6, 16)": lambda x: x.amax(dim=(2, 3), keepdim=True),
        "its shape is (6, 144), and should be (6, 16)": lambda x: x.flatten(1),
        "its shape is (6, 16, 3), and should be (6, 16)": lambda x: x.amax(dim=2),
        "its shape is (6, 3, 3), and should be (6, 16)": lambda x: x.amax(dim=1),
        "there is a position that the result does not depend on": lambda x: x[:, :, -1, -1],
        "an image's vector depends on the other images": lambda x: largest(x) - largest(x).mean(dim=0),
        "no gradient reaches the feature map": lambda x: largest(x.detach()),
        "one number is not finite": lambda x: x.log().mean(dim=(2, 3)),
    },
)
def one_vector(answer: Function) -> str | None:
    """Any way from a feature map to one vector, but for the mean."""
    for height, width in ((3, 3), (1, 1), (2, 5)):
        feature_map = torch.rand(6, 16, height, width).requires_grad_()
        out = solved(answer(feature_map))
        if not isinstance(out, Tensor):
            return f"it is of type {type(out).__name__}: return a tensor"
        if out.shape != (6, 16):
            return f"its shape is {tuple(out.shape)}, and should be (6, 16), for a feature map {tuple(feature_map.shape)}"
        if not out.requires_grad:
            return "no gradient reaches the feature map, so the tower could not learn"
        with torch.no_grad():
            if not answer(F.relu(feature_map - 0.5)).isfinite().all():
                return f"one number is not finite, for a feature map {tuple(feature_map.shape)} with zeros in it"
            alone = answer(feature_map[:1].clone())
            if alone.shape != (1, 16):
                return f"a single image gives the shape {tuple(alone.shape)}, and should give (1, 16)"
            if not torch.allclose(alone[0], out[0], atol=1e-5):
                return "an image's vector depends on the other images in the batch"
            if height * width > 1 and torch.allclose(out, average(feature_map), atol=1e-5):
                return "this is the mean, which the tower has already: try another way"
            if height * width > 1 and torch.allclose(out, out[:, :1].expand(-1, 16)):
                return "all channels get the same number: each has a value of its own"
            mean = average(feature_map)
            scaled = torch.allclose(F.normalize(out), F.normalize(mean), atol=1e-5)
            shifted = torch.stack([out.flatten(), mean.flatten()]).double().corrcoef()[0, 1].abs() > 1 - 1e-8
            if height * width > 1 and (scaled or shifted):
                return "this is the mean, scaled or shifted, and nothing new: try another way"
            if ignored_position(answer, feature_map.detach()):
                return (
                    f"there is a position that the result does not depend on, for a feature map {tuple(feature_map.shape)}"
                )
    return None
