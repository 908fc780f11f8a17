"""Checks of lesson 07: the training loop, the schedule, snapshots, and how sure a difference is."""

import copy
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ... import loop
from ...optimizers import learning_rate_factor as packages_factor
from . import Function, NotSolved, examined, exercise, solved


class Toy(nn.Module):
    """What `batch_loss` and `train_epoch` need of a model; in float64, which autocast leaves alone."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
        self.text_encoder = nn.EmbeddingBag(9, 4)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(120.0)))
        self.double()

    def encode_image(self, images: Tensor) -> Tensor:
        return self.image_encoder(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.text_encoder(tokens)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        self.logit_scale.clamp_(max=math.log(100))


BATCHES, PAIRS = 4, 6


def set_scale(model: Toy, value: Tensor) -> None:
    model.logit_scale.data = value.detach()


def trained(function: Function, seed: int, epoch: int) -> dict[str, Any]:
    """What a loop does to a toy: rates, loss, floor and weights at each moment at which it waits, and at its end."""
    torch.manual_seed(seed)
    model = Toy().eval()
    tokens = torch.randint(9, (3, 1, 5))
    loader = [
        (torch.randn(PAIRS, 3, 2, 2, dtype=torch.float64), torch.randperm(PAIRS) % 3 * (torch.rand(PAIRS) < 0.8))
        for _ in range(BATCHES)
    ]
    towers = [*model.image_encoder.parameters(), *model.text_encoder.parameters()]
    # The scale starts above its cap, and each step moves it up.
    optimizers = [torch.optim.SGD(towers[:3], lr=0.02), torch.optim.SGD(towers[3:], lr=0.05)]
    optimizers[0].register_step_post_hook(lambda *_: set_scale(model, model.logit_scale + 0.3))
    recipe = loop.Recipe(epochs=2, batch_size=PAIRS, warmup=0.375, label_smoothing=0.2)  # 3 of 8 steps
    seen: dict[str, Any] = {"each step yields": "(loss, floor)"}
    seen |= {name: [] for name in ("rates", "loss", "floor", "weights", "keeps a graph")}

    def look() -> None:
        seen["rates"].append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
        # In training mode, BatchNorm's statistics move too: they are among the weights here.
        seen["weights"].append(torch.cat([tensor.detach().flatten().double() for tensor in model.state_dict().values()]))

    for step in islice(solved(function(model, loader, optimizers, tokens, recipe, epoch)), 4 * BATCHES):
        if step is None or step is ...:
            raise NotSolved
        if not isinstance(step, (tuple, list)) or len(step) != 2:
            return {"each step yields": f"of type {type(step).__name__}"}
        loss, floor = step
        look()
        seen["loss"].append(torch.as_tensor(loss).item())
        seen["floor"].append(torch.as_tensor(floor).item())
        seen["keeps a graph"].append(isinstance(loss, Tensor) and loss.requires_grad)
    look()
    return seen


def loss_by_hand(model: Any, images: Tensor, labels: Tensor, tokens: Tensor, smoothing: float) -> Tensor:
    """The mean of both directions, from the targets of each cell."""
    image, text = model.encode_image(images).float(), model.encode_text(tokens[labels, 0]).float()
    logits = model.logit_scale.exp() * (image / image.norm(dim=1, keepdim=True)) @ (text / text.norm(dim=1, keepdim=True)).T
    targets = targets_by_hand(labels, smoothing)
    return -(targets * (logits.log_softmax(dim=1) + logits.T.log_softmax(dim=1))).sum() / (2 * len(labels))


def targets_by_hand(labels: Tensor, smoothing: float) -> Tensor:
    same = (labels[:, None] == labels).double()
    return (1 - smoothing) * same / same.sum(dim=1) + smoothing / len(labels)


def an_epoch(**wrong: Any) -> Function:
    """A training loop, with what is wrong about it."""

    def train_epoch(
        model: Any, loader: Any, optimizers: Any, caption_tokens: Tensor, recipe: Any, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if "no train mode" not in wrong:
            model.train()
        total = wrong.get("total", lambda recipe, loader: recipe.epochs * len(loader))(recipe, loader)
        warmup = wrong.get("warmup", lambda recipe, total: max(1, round(recipe.warmup * total)))(recipe, total)
        begin = wrong.get("begin", lambda epoch, loader: epoch * len(loader))(epoch, loader)

        def set_rates(step: int) -> None:
            factor = (step + 1) / warmup if step < warmup else wave((step - warmup) / max(1, total - warmup))
            for optimizer in optimizers if "first rate" not in wrong else optimizers[:1]:
                for group in optimizer.param_groups:
                    group["lr"] = optimizer.defaults["lr"] * factor

        for count, (images, labels) in enumerate(loader):
            if "rates late" not in wrong and "rates" not in wrong:
                set_rates(begin + count)
            smoothing = 0.0 if "no smoothing" in wrong else recipe.label_smoothing
            if "clamp first" in wrong:
                model.clamp_logit_scale()
            loss = loss_by_hand(model, images, labels, caption_tokens, smoothing)
            if "adds up" not in wrong:
                model.zero_grad()
            loss.backward()
            if "clamp between" in wrong:
                model.clamp_logit_scale()
            if "zero after" in wrong:
                for parameter in model.parameters():
                    parameter.grad.zero_()
            for optimizer in optimizers if "first" not in wrong else optimizers[:1]:
                optimizer.step()
            if "rates late" in wrong:
                set_rates(begin + count)
            if not {"no clamp", "clamp first", "clamp between"} & set(wrong):
                model.clamp_logit_scale()
            targets = targets_by_hand(labels, 0.0 if "plain floor" in wrong else recipe.label_smoothing)
            floor = torch.special.entr(targets).sum(dim=1).mean()
            loss = loss if "graph" in wrong else loss.detach()
            yield (loss - floor, floor) if "above" in wrong else (loss, floor)

    return train_epoch


@exercise(
    inputs=lambda: {f"in epoch {epoch} of 0 and 1": (int(torch.randint(1_000, ())), epoch) for epoch in (0, 1)},
    outcome=trained,
    package=loop.train_epoch,
    mistakes={
        "nothing is learned: `zero_grad`, `backward` and the steps of all optimizers come in this order": (
            an_epoch(**{"zero after": 1})
        ),
        "the gradients of all batches add up: set them to zero before each `backward`": an_epoch(**{"adds up": 1}),
        "only the first optimizer takes a step": an_epoch(first=1),
        "the model stays in evaluation mode: BatchNorm uses its running statistics": an_epoch(**{"no train mode": 1}),
        "the scale is not capped: clamp it after the step": an_epoch(**{"no clamp": 1}),
        "the scale is capped before the step, which may move it above the cap again": an_epoch(**{"clamp first": 1}),
        "the scale is capped between `backward` and the step, which may move it above the cap again": (
            an_epoch(**{"clamp between": 1})
        ),
        "the schedule starts anew with each epoch: its first step has the number epoch × len(loader)": (
            an_epoch(begin=lambda epoch, loader: 0)
        ),
        "the first step of an epoch has the number epoch × len(loader), and not `epoch`": (
            an_epoch(begin=lambda epoch, loader: epoch)
        ),
        "the schedule ends with the first epoch: all epochs together have recipe.epochs × len(loader) steps": (
            an_epoch(total=lambda recipe, loader: len(loader))
        ),
        "the steps are counted from 1: step 0 already learns": an_epoch(begin=lambda epoch, loader: epoch * len(loader) + 1),
        "the warm-up is a fraction of the epoch: take it of all steps": (
            an_epoch(warmup=lambda recipe, total: max(1, round(recipe.warmup * total / recipe.epochs)))
        ),
        "`recipe.warmup` is a fraction, and not a number of steps: multiply by all steps": (
            an_epoch(warmup=lambda recipe, total: recipe.warmup)
        ),
        "the learning rates are never set": an_epoch(rates=1),
        "the learning rates are set after the step, so each is one step late": an_epoch(**{"rates late": 1}),
        "only the first optimizer's learning rate follows the schedule": an_epoch(**{"first rate": 1}),
        "the loss lacks the recipe's label smoothing": an_epoch(**{"no smoothing": 1}),
        "the floor lacks the recipe's label smoothing": an_epoch(**{"plain floor": 1}),
        "the loss is yielded with its graph, which keeps every batch in memory: detach it": an_epoch(graph=1),
        "yield the loss and its floor, and not their difference": an_epoch(above=1),
        "all steps are done before the first is yielded: yield inside the loop": lambda *a: list(an_epoch()(*a)),
    },
    tolerance=1e-4,
)
def train_epoch(
    model: Any, loader: Any, optimizers: Any, caption_tokens: Tensor, recipe: Any, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    return an_epoch()(model, loader, optimizers, caption_tokens, recipe, epoch)


def wave(fraction: float) -> float:
    """Half a cosine, from 1 to 0."""
    return math.cos(math.pi * fraction / 2) ** 2  # the same as (1 + cos(π · fraction)) / 2


def rise_and(fall: Function) -> Function:
    """The right warm-up, and then `fall`: step, total steps, warm-up steps → factor."""
    return lambda step, total, warmup: (step + 1) / warmup if step < warmup else fall(step, total, warmup)


def rising(rise: Function) -> Function:
    """Some rise: step, warm-up steps → factor; and then the right cosine."""
    return lambda step, total, warmup: rise(step, warmup) if step < warmup else wave((step - warmup) / (total - warmup))


@exercise(
    inputs=lambda: [(step, total, warmup) for total, warmup in ((20, 5), (64, 8)) for step in range(total)],
    package=packages_factor,
    mistakes={
        "the warm-up is missing: the first `warmup_steps` rise in a straight line": lambda s, n, w: wave(s / n),
        "the rate is 0 at step 0, so the first batch teaches nothing: rise with step + 1": rising(lambda s, w: s / w),
        "the cosine counts from step 0, so it jumps down where the warm-up ends: count from there": (
            rise_and(lambda s, n, w: wave(s / n))
        ),
        "it falls below zero, and would climb the loss: a cosine goes from 1 to −1, so add 1 and halve": (
            rise_and(lambda s, n, w: math.cos(math.pi * (s - w) / (n - w)))
        ),
        "it falls in a straight line: half a cosine stays high first and ends gently": (
            rise_and(lambda s, n, w: 1 - (s - w) / (n - w))
        ),
        "this is a quarter of a wave, which ends steeply: take half a wave, from 1 to −1, add 1 and halve": (
            rise_and(lambda s, n, w: math.cos(math.pi / 2 * (s - w) / (n - w)))
        ),
        "it stays at the peak after the warm-up": rise_and(lambda s, n, w: 1),
        "the cosine begins at 2: after adding 1, halve": rise_and(lambda s, n, w: 2 * wave((s - w) / (n - w))),
        "the cosine is spread over all steps, and does not come down: it has total_steps − warmup_steps of them": (
            rise_and(lambda s, n, w: wave((s - w) / n))
        ),
        "the last step has a rate of 0 and teaches nothing: divide by total_steps − warmup_steps": (
            rise_and(lambda s, n, w: wave((s - w) / (n - w - 1)))
        ),
        "the rise goes on for one step too many, above 1: step `warmup_steps` belongs to the cosine": (
            rise_and(lambda s, n, w: (s + 1) / w if s == w else wave((s - w) / (n - w)))
        ),
        "the last step of the warm-up is below the peak: divide by warmup_steps": rising(lambda s, w: (s + 1) / (w + 1)),
    },
    tolerance=1e-6,
)
def learning_rate_factor(step: int, total_steps: int, warmup_steps: int) -> float:
    return rise_and(lambda s, n, w: wave((s - w) / (n - w)))(step, total_steps, warmup_steps)


@examined(
    right=lambda model: copy.deepcopy(model.state_dict()),
    mistakes={
        "return a dict from names to tensors": copy.deepcopy,
        "running statistics are no parameters": lambda model: {n: p.detach().clone() for n, p in model.named_parameters()},
        "take all that `state_dict()` names": lambda model: copy.deepcopy(dict(model.named_buffers())),
        "of type ndarray: keep tensors": lambda model: {n: t.numpy().copy() for n, t in model.state_dict().items()},
        "moves on with the model": lambda model: model.state_dict(),
        "is kept as torch.bfloat16": lambda model: {n: t.bfloat16() for n, t in model.state_dict().items()},
        "has other values than the model had": lambda model: {n: torch.zeros_like(t) for n, t in model.state_dict().items()},
        "does not belong there": lambda model: {**copy.deepcopy(model.state_dict()), "step": torch.tensor(10)},
        "is left in evaluation mode": lambda model: copy.deepcopy(model.eval().state_dict()),
        "as in `broken_snapshot`": lambda model: {n: p.detach() for n, p in model.named_parameters()},
    },
)
def snapshot(answer: Function) -> str | None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model(torch.randn(8, 3))  # its running statistics move away from 0 and 1
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    got = solved(answer(model))
    if not isinstance(got, dict):
        return f"it is of type {type(got).__name__}: return a dict from names to tensors"
    if other := [name for name in got if name in before and not isinstance(got[name], Tensor)]:
        return f"{other[0]} is of type {type(got[other[0]]).__name__}: keep tensors, which `load_state_dict` takes back"
    if not model.training:
        return "the model is left in evaluation mode, and training goes on"
    with torch.no_grad():  # training goes on
        for tensor in model.state_dict().values():
            tensor.add_(1)
    lost = [name for name in before if name not in got]
    now = model.state_dict()
    moved = [name for name in before if name in got and torch.equal(got[name], now[name])]
    running = [name for name in lost if name.startswith("1.running")]
    buffers_alone = running and not any(name in lost for name, _ in model.named_parameters())
    if buffers_alone and moved:
        return f"{moved[0]} still moves with the model, and {lost[0]} is missing, both as in `broken_snapshot`"
    if buffers_alone:
        return f"{running[0]} is missing: BatchNorm's running statistics are no parameters, but evaluation needs them"
    if lost:
        return f"{lost[0]} is missing: take all that `state_dict()` names"
    if moved:
        return f"{moved[0]} moves on with the model: `state_dict()` hands out the tensors themselves, so copy each"
    if extra := [name for name in got if name not in before]:
        return f"{extra[0]} does not belong there: `load_state_dict` would refuse it"
    for name, tensor in before.items():
        if got[name].dtype != tensor.dtype:
            return f"{name} is kept as {got[name].dtype}: keep {tensor.dtype}, so that a run goes on from there exactly"
        if not torch.equal(got[name], tensor):
            return f"{name} has other values than the model had"
    return None


def draw_answers() -> list[tuple[Tensor, Tensor]]:
    """Two models on the same pictures: they agree on many, and one is better."""
    easy, first, second = torch.rand(3, 4_000)
    return [(first < a * (easy < 0.9), second < b * (easy < 0.9)) for a, b in ((0.95, 0.7), (0.9, 0.98))]


def variance(right: Tensor) -> float:
    fraction = right.double().mean().item()
    return fraction * (1 - fraction)


def paired_variance(a: Tensor, b: Tensor) -> float:
    """Of the difference at one picture, from a table of the four cases."""
    n = len(a)
    only_a, only_b = (a & ~b).sum().item() / n, (b & ~a).sum().item() / n
    return only_a + only_b - (only_a - only_b) ** 2


@exercise(
    inputs=draw_answers,
    outcome=lambda function, a, b: 1_000 * solved(function(a, b)),  # so that the tolerance is one in a thousand
    mistakes={
        "this is the error for two independent sets of pictures: look at the difference picture by picture": (
            lambda a, b: math.sqrt((variance(a) + variance(b)) / len(a))
        ),
        "both errors are added: even independent ones add in squares, and these are not independent": (
            lambda a, b: math.sqrt(variance(a) / len(a)) + math.sqrt(variance(b) / len(a))
        ),
        "this is the error of the first accuracy alone": lambda a, b: math.sqrt(variance(a) / len(a)),
        "this is the error of the second accuracy alone": lambda a, b: math.sqrt(variance(b) / len(a)),
        "this is a variance: take its square root": lambda a, b: paired_variance(a, b) / len(a),
        "this is the spread of one picture's difference: the mean of n of them spreads √n times less": (
            lambda a, b: math.sqrt(paired_variance(a, b))
        ),
        "it is divided by n: the variance falls with n, its square root with √n": (
            lambda a, b: math.sqrt(paired_variance(a, b)) / len(a)
        ),
        "this is the difference itself: how far is it typically off?": (
            lambda a, b: (a.double().mean() - b.double().mean()).item()
        ),
        "the mean difference is taken as zero: it has to be subtracted before squaring": (
            lambda a, b: math.sqrt((a ^ b).double().mean().item() / len(a))
        ),
        "this asks only whether the two differ: a picture that b gets right and a does not counts −1": (
            lambda a, b: (a ^ b).double().std(correction=0).item() / math.sqrt(len(a))
        ),
        "this is the half-width of a 95% interval, 1.96 standard errors": (
            lambda a, b: 1.96 * math.sqrt(paired_variance(a, b) / len(a))
        ),
        "this is in percent: accuracies are fractions in [0, 1] here": (
            lambda a, b: 100 * math.sqrt(paired_variance(a, b) / len(a))
        ),
    },
    tolerance=1e-3,
)
def difference_error(right_a: Tensor, right_b: Tensor) -> float:
    return math.sqrt(paired_variance(right_a, right_b) / len(right_a))
