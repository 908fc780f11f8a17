"""Checks of lesson 05: the forward pass, the loss, its gradient, the least loss at a scale, and the cap of the scale."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...losses import clip_loss as package_loss
from ...model import MiniCLIP, ModelConfig
from . import Function, exercise, solved

LOGITS = tuple[Tensor, Tensor]
TINY = ModelConfig(embed_dim=6, resnet_stem_width=4, resnet_widths=(4, 4, 4), text_width=8, text_layers=1, text_num_heads=2)


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True)


def draw_model() -> dict[str, tuple[MiniCLIP, Tensor, Tensor, bool]]:
    """A tiny model with three images and two captions; above the cap of the scale, too; at last for its gradient."""
    model = MiniCLIP(TINY, vocab_size=12, context_length=5).eval()
    hot = MiniCLIP(TINY, vocab_size=12, context_length=5).eval()
    with torch.no_grad():
        for parameter in (*model.parameters(), *hot.parameters()):
            if parameter.dim() > 0:
                parameter.copy_(torch.randn_like(parameter) / 2)  # so that features differ from pair to pair
        hot.logit_scale.fill_(math.log(200))
    images, tokens = torch.randn(3, 3, 9, 9), torch.tensor([[2, 5, 6, 3, 0], [2, 7, 8, 9, 3]])
    return {
        "": (model, images, tokens, False),
        "at a scale of 200": (hot, images, tokens, False),
        "in its gradient": (model, images, tokens, True),
    }


def logits_or_gradient(forward: Function, model: MiniCLIP, images: Tensor, tokens: Tensor, gradient: bool) -> object:
    """What an answer returns; or how much the temperature and both projections move the first of its matrices."""
    if not gradient:
        return forward(model, images, tokens)
    per_image, _ = forward(model, images, tokens)
    reached = (model.logit_scale, model.image_projection.weight, model.text_projection.weight)
    return gradients(per_image.square().sum(), reached)


def gradients(value: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Of each leaf, its gradient: zeros where none reaches it."""
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True))


def both(logits: Callable[[MiniCLIP, Tensor, Tensor], Tensor]) -> Function:
    """A forward pass from the logits per image, and their transpose."""

    def forward(model: MiniCLIP, images: Tensor, tokens: Tensor) -> LOGITS:
        per_image = logits(model, images, tokens)
        return per_image, per_image.T

    return forward


def features(model: MiniCLIP, images: Tensor, tokens: Tensor) -> LOGITS:
    return model.encode_image(images), model.encode_text(tokens)


def cosines(model: MiniCLIP, images: Tensor, tokens: Tensor) -> Tensor:
    image, text = features(model, images, tokens)
    return torch.cosine_similarity(image[:, None], text[None], dim=2)


def products(of_image: Function, of_text: Function) -> Function:
    """Scaled dot products of the features, each side after a function of its own."""

    def logits(model: MiniCLIP, images: Tensor, tokens: Tensor) -> Tensor:
        image, text = features(model, images, tokens)
        return model.logit_scale.exp() * of_image(image) @ of_text(text).T

    return both(logits)


def same(vectors: Tensor) -> Tensor:
    return vectors


SCALED = both(lambda model, images, tokens: model.logit_scale.exp() * cosines(model, images, tokens))


def unit_before_projection(model: MiniCLIP, images: Tensor, tokens: Tensor) -> Tensor:
    image = model.image_projection(unit(model.image_encoder(images)))
    return model.logit_scale.exp() * image @ model.text_projection(unit(model.text_encoder(tokens))).T


@exercise(
    inputs=draw_model,
    outcome=logits_or_gradient,
    package=MiniCLIP.forward,
    mistakes={
        "nothing gets a gradient: `torch.no_grad()` or `.detach()` cuts it off": torch.no_grad()(SCALED),
        "no gradient reaches the features: `.detach()` cuts it off, and the towers are never trained": (
            both(lambda model, i, t: model.logit_scale.exp() * cosines(model, i, t).detach())
        ),
        "no gradient reaches the scale: `.item()` or `.detach()` cuts it off, and it is never learned": (
            both(lambda model, i, t: model.logit_scale.exp().detach() * cosines(model, i, t))
        ),
        "the L2 norm is missing: these are plain dot products, in which long vectors win": products(same, same),
        "only the images are normalised: the texts keep their norms": products(unit, same),
        "only the texts are normalised: the images keep their norms": products(same, unit),
        "the norm is taken over the batch (dim=0): each row, one vector, needs a norm of 1": (
            products(lambda rows: unit(rows.T).T, lambda rows: unit(rows.T).T)
        ),
        "each side is divided by one norm for the whole batch: each row needs a norm of 1 of its own": (
            products(lambda rows: rows / rows.norm(), lambda rows: rows / rows.norm())
        ),
        "the vectors are normalised before the projection, which then changes their norms again": both(
            unit_before_projection
        ),
        "a LayerNorm stands where the L2 norm belongs: it gives a norm of √D, and turns the vectors": (
            products(lambda rows: F.layer_norm(rows, (6,)), lambda rows: F.layer_norm(rows, (6,)))
        ),
        "these are the cosines: multiply them by the scale, `self.logit_scale.exp()`": both(cosines),
        "`logit_scale` is used as it is: it is the logarithm of the scale, so take its exp()": (
            both(lambda model, i, t: model.logit_scale * cosines(model, i, t))
        ),
        "the cosines are divided by the scale: it is the *inverse* temperature, so multiply": (
            both(lambda model, i, t: cosines(model, i, t) / model.logit_scale.exp())
        ),
        "the scale is capped here: above the cap its gradient would be zero, and it could not come down again": (
            both(lambda model, i, t: model.logit_scale.exp().clamp(max=100) * cosines(model, i, t))
        ),
        "a softmax is taken: return the logits, the loss takes the softmax itself": (
            both(lambda model, i, t: (model.logit_scale.exp() * cosines(model, i, t)).softmax(dim=1))
        ),
        "the second matrix is not transposed: its rows are texts": (
            lambda model, i, t: 2 * (model.logit_scale.exp() * cosines(model, i, t),)
        ),
        "the two are exchanged: `logits_per_image`, with images as rows, comes first": (
            lambda model, i, t: SCALED(model, i, t)[::-1]
        ),
        "this is one matrix: return `logits_per_image` and `logits_per_text`": (lambda model, i, t: SCALED(model, i, t)[0]),
    },
)
def forward(model: MiniCLIP, images: Tensor, tokens: Tensor) -> LOGITS:
    per_image = model.logit_scale.exp() * cosines(model, images, tokens)
    return per_image, per_image.T


def costs(logits: Tensor) -> Tensor:
    """Of each row, whose true pair stands on the diagonal: −log of its softmax."""
    return logits.exp().sum(dim=1).log() - logits.diag()


def loss(logits: Tensor) -> Tensor:
    return (costs(logits) + costs(logits.T)).mean() / 2


def draw_features() -> dict[str, tuple[Tensor, Tensor, Tensor, bool]]:
    image, text = (torch.randn(6, 4, dtype=torch.float64) for _ in range(2))
    scale = torch.tensor(5.0, dtype=torch.float64)
    return {"": (image, text, scale, False), "in its gradient": (image, text, scale, True)}


def loss_or_gradient(function: Function, image: Tensor, text: Tensor, scale: Tensor, gradient: bool) -> object:
    arguments = [argument.requires_grad_() for argument in (image, text, scale)]
    value = solved(function(unit(image), unit(text), scale))
    if isinstance(value, float):
        return "a float"  # so that it differs from a tensor of shape (1,)
    return gradients(value, arguments) if gradient else value


def of_logits(function: Callable[[Tensor], object]) -> Function:
    """A loss from a function of the right logits."""
    return lambda image, text, scale: function(scale * image @ text.T)


@exercise(
    inputs=draw_features,
    outcome=loss_or_gradient,
    package=package_loss,
    mistakes={
        "nothing gets a gradient: `torch.no_grad()` or `.detach()` cuts it off": of_logits(lambda x: loss(x).detach()),
        "no gradient reaches the features: `.detach()` cuts it off, and the towers are never trained": (
            lambda image, text, scale: loss(scale * (image @ text.T).detach())
        ),
        "no gradient reaches the scale: `.item()` or `.detach()` cuts it off, and it is never learned": (
            lambda image, text, scale: loss(scale.detach() * image @ text.T)
        ),
        "one direction is missing: this is only image → text, the softmax along the rows": of_logits(
            lambda x: costs(x).mean()
        ),
        "one direction is missing: this is only text → image, the softmax along the columns": (
            of_logits(lambda x: costs(x.T).mean())
        ),
        "the two directions are added, and not averaged: divide by 2": of_logits(lambda x: 2 * loss(x)),
        "the costs of the pairs are added up: take the mean, or it grows with the batch": (
            of_logits(lambda x: len(x) * loss(x))
        ),
        "the scale is missing: multiply the cosines by `logit_scale`": lambda image, text, scale: loss(image @ text.T),
        "`logit_scale` is exponentiated once more: what comes in is the scale itself": (
            lambda image, text, scale: loss(scale.exp() * image @ text.T)
        ),
        "it divides by `logit_scale`: that is the *inverse* temperature, so multiply": (
            lambda image, text, scale: loss(image @ text.T / scale)
        ),
        "the scale is applied twice": lambda image, text, scale: loss(scale**2 * image @ text.T),
        "the softmax is applied twice: `F.cross_entropy` wants logits, and takes the softmax itself": (
            of_logits(lambda x: (costs(x.softmax(dim=1)) + costs(x.T.softmax(dim=1))).mean() / 2)
        ),
        "the sign is turned: the loss is minus the logarithm of the probability": of_logits(lambda x: -loss(x)),
        "every pair has target 0: the right answer for pair i is i": (
            of_logits(lambda x: -(x.log_softmax(dim=1)[:, 0] + x.log_softmax(dim=0)[0]).mean() / 2)
        ),
        "the softmax is missing: without it nothing pushes the wrong pairs apart": of_logits(lambda x: -x.diag().mean()),
        "it is of type float: return the tensor itself, or no gradient can flow back": of_logits(lambda x: loss(x).item()),
    },
)
def clip_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    return loss(logit_scale * image_features @ text_features.T)


def rows(x: Tensor) -> Tensor:
    """The gradient of image → text alone: softmax minus target, along the rows."""
    return (x.softmax(dim=1) - torch.eye(len(x))) / len(x)


def gradient(x: Tensor) -> Tensor:
    return (rows(x) + rows(x.T).T) / 2


@exercise(
    inputs=lambda: (torch.randn(5, 5, dtype=torch.float64),),
    outcome=torch.inference_mode()(lambda function, logits: function(logits.clone())),  # autograd gives an error there
    mistakes={
        "this asks autograd: write the formula instead": lambda x: torch.autograd.grad(x.logsumexp(dim=1).sum(), x),
        "one direction is missing: this is the gradient of image → text alone": rows,
        "one direction is missing: this is the gradient of text → image alone": lambda x: rows(x.T).T,
        "half of one direction is right, and the other one is missing: this is image → text": lambda x: rows(x) / 2,
        "half of one direction is right, and the other one is missing: this is text → image": lambda x: rows(x.T).T / 2,
        "the 1/N is missing: the loss is a mean over the pairs": lambda x: len(x) * gradient(x),
        "the 1/2 is missing: the loss is the mean of two directions": lambda x: 2 * gradient(x),
        "the 1/(2N) is missing: the loss is a mean over N pairs and two directions": lambda x: 2 * len(x) * gradient(x),
        "the sign is turned: softmax minus target, not target minus softmax": lambda x: -gradient(x),
        "the target is missing: subtract 1 on the diagonal, once in each direction": (
            lambda x: (x.softmax(dim=1) + x.softmax(dim=0)) / (2 * len(x))
        ),
        "the target is subtracted once, but there are two directions": lambda x: (rows(x) + x.softmax(dim=0) / len(x)) / 2,
        "the columns' part is transposed: turn logits.T.softmax(dim=1) back, or take softmax(dim=0)": (
            lambda x: (rows(x) + rows(x.T)) / 2
        ),
    },
    tolerance=1e-6,
)
def logit_gradient(logits: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        logits = logits.clone().requires_grad_()
        return torch.autograd.grad(loss(logits), logits)[0]


def least(gap: Callable[[int], float], others: Callable[[int], int] = lambda n: n - 1) -> Function:
    """The loss of a row whose true logit lies `scale * gap` above all others."""
    return lambda n, scale: math.log(1 + others(n) * math.exp(-scale * gap(n)))


@exercise(
    inputs=lambda: [(128, 1.0), (8, 5.0), (3, 0.5), (2, 1.0)],
    mistakes={
        "the other cosines are −1 here: more than two vectors cannot all be opposite to each other": least(lambda n: 2),
        "the other cosines are 0 here: the vectors can lie further apart than at right angles": least(lambda n: 1),
        "the other cosines are −1/n here: a vector has n − 1 others": least(lambda n: 1 + 1 / n),
        "there are n − 1 wrong texts, not n": least(lambda n: n / (n - 1), others=lambda n: n),
        "there are n − 1 wrong texts, not one": least(lambda n: n / (n - 1), others=lambda n: 1),
        "the scale is missing: the logits are cosines times the scale": lambda n, scale: least(lambda n: n / (n - 1))(n, 1),
        "the sign is turned: the loss is minus the logarithm of the probability": (
            lambda n, scale: -least(lambda n: n / (n - 1))(n, scale)
        ),
        "this is the probability of the true text: the loss is minus its logarithm": (
            lambda n, scale: math.exp(-least(lambda n: n / (n - 1))(n, scale))
        ),
        "this is how far the logits lie apart: the loss is minus the logarithm of a softmax of them": (
            lambda n, scale: scale * n / (n - 1)
        ),
        "this is ln n, where nothing is known: here the vectors lie as well as they can": lambda n, scale: math.log(n),
        "it is zero, but no logit is far enough above the others for that": lambda n, scale: 0,
    },
)
def least_loss(n: int, scale: float) -> float:
    # The corners of a regular simplex: n vectors, each as far from all others as possible.
    vectors = torch.eye(n, dtype=torch.float64) - 1 / n
    return costs(scale * unit(vectors) @ unit(vectors).T).mean().item()


class Watched(nn.Module):
    """Knows whether one of its parameters was asked for."""

    touched = False

    def __getattr__(self, name: str) -> Any:
        vars(self)["touched"] = True
        return super().__getattr__(name)


def cap_each(function: Function, starts: tuple[float, ...]) -> object:
    """What becomes of temperatures that start so: each value, and whether it can still be learned.

    Where nothing has changed, what is returned, too: for a stub, which does not even look at the temperature, nothing.
    """
    outcomes: dict[str, Any] = {}
    changed = touched = False
    for start in starts:
        model: Any = Watched()
        model.logit_scale = trained = nn.Parameter(torch.tensor(start))  # what an optimizer holds
        model.touched = False
        returned = function(model)
        touched = touched or model.touched
        changed = changed or not isinstance(model.logit_scale, Tensor) or model.logit_scale.item() != start
        outcomes[f"t = {start:g} becomes"] = model.logit_scale
        outcomes[f"t = {start:g} is the same parameter"] = model.logit_scale is trained
        outcomes[f"t = {start:g} is still learned"] = trained.requires_grad
    if not changed:
        outcomes["returned"] = "nothing" if touched and returned is None else solved(returned)
    return outcomes


def set_to(value: Callable[[Tensor], Tensor]) -> Function:
    """A change of the temperature in place."""

    def clamp_logit_scale(model: Any) -> None:
        model.logit_scale.data = value(model.logit_scale.data)

    return clamp_logit_scale


def replaced(model: Any) -> None:
    model.logit_scale = nn.Parameter(model.logit_scale.detach().clamp(max=math.log(100)))


def frozen(model: Any) -> None:
    model.logit_scale.requires_grad_(False).clamp_(max=math.log(100))


@exercise(
    inputs=lambda: ((0.5, 2.0, 6.0, 120.0),),
    outcome=cap_each,
    package=MiniCLIP.clamp_logit_scale,
    mistakes={
        "PyTorch refuses an in-place change of a parameter that autograd watches: put it under `torch.no_grad()`": (
            lambda model: model.logit_scale.clamp_(max=math.log(100))
        ),
        "this returns the capped scale, as the broken version does: cap the parameter itself, in place": (
            lambda model: model.logit_scale.exp().clamp(max=100)
        ),
        "the parameter stays as it is: `clamp` gives a capped copy, and `clamp_` changes it in place": (
            lambda model: 0 * model.logit_scale.item() or None
        ),
        "this returns a capped copy, and the parameter stays as it is: change it in place, with `clamp_`": (
            lambda model: model.logit_scale.clamp(max=math.log(100))
        ),
        "the parameter is capped at 100, but it is the logarithm of the scale: cap it at ln 100": (
            set_to(lambda t: t.clamp(max=100))
        ),
        "the parameter now holds the scale: it is the logarithm of the scale that is learned": (
            set_to(lambda t: t.exp().clamp(max=100))
        ),
        "the cap works as a floor: use `max=`, not `min=`": set_to(lambda t: t.clamp(min=math.log(100))),
        "the parameter is set to the cap even where it lies below": set_to(lambda t: t * 0 + math.log(100)),
        "this is a new parameter: the optimizer still holds the old one, so change that one in place": replaced,
        "the parameter no longer asks for a gradient, so it is never learned again: use `torch.no_grad()`": frozen,
    },
)
def clamp_logit_scale(model: Any) -> None:
    with torch.no_grad():
        model.logit_scale.copy_(torch.tensor(min(model.logit_scale.item(), math.log(100))))
