"""Checks of lesson 10: chunked logsumexps, the gradient cache, checkpointed bytes, a process's own rows, GPU-days."""

import builtins
import dis
import math
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ... import distributed, gradient_cache, losses
from . import Function, NotSolved, exercise, solved

N, CHUNK = 46, 4  # pairs and rows of a chunk; the last chunk has two rows


class HeldChunks(TorchDispatchMode):
    """Keeps how many numbers the tensors of at least a chunk's size have that exist at one moment, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.numel() >= CHUNK * N:
            self.held[id(result)] = result.numel()
            weakref.finalize(result, self.held.pop, id(result), None).atexit = False
            self.most = max(self.most, sum(self.held.values()))
        return result


def logsumexps(function: Function, scaled: Tensor, text_features: Tensor, chunk_size: int) -> dict[str, Any]:
    """What an answer returns, whether it ever held the matrix, whole or in chunks, and whether it rounded float64."""
    with HeldChunks() as chunks:
        pair = solved(function(scaled, text_features, chunk_size))
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError("return two tensors, rows and columns")
    found = {"rows": solved(pair[0]), "columns": solved(pair[1])}
    exact = all(getattr(numbers, "dtype", None) in (scaled.dtype, torch.float64) for numbers in found.values())
    found |= {"held at one moment": "the whole matrix" if chunks.most > 0.8 * N * N else "less than the matrix"}
    return found | {"precision": "that of the inputs" if exact else "less than that of the inputs"}


def draw_scaled() -> dict[str, tuple[Tensor, Tensor, int]]:
    """Logits between −5 and 5, between −140 and 140 with one text far from all images, and in float64."""
    image, text = F.normalize(torch.randn(2, N, 6), dim=-1)
    near = F.normalize(torch.eye(6)[0] + 0.2 * image, dim=-1)
    far = torch.cat([near[:-1], -torch.eye(6)[:1]])
    in_float64 = (5 * image.double(), text.double(), CHUNK)
    return {"": (5 * image, text, CHUNK), "at a large scale": (140 * near, far, CHUNK), "in float64": in_float64}


def with_columns(join: Callable[[Iterator[Tensor]], Tensor]) -> Function:
    """Right rows, and columns joined from the chunks of logits, of which one exists at a time."""

    def chunked(scaled: Tensor, text: Tensor, size: int) -> tuple[Tensor, Tensor]:
        rows = torch.cat([(part @ text.T).logsumexp(dim=1) for part in scaled.split(size)])
        return rows, join(part @ text.T for part in scaled.split(size))

    return chunked


def each(chunks: Iterable[Tensor]) -> Tensor:
    return torch.stack([chunk.logsumexp(dim=0) for chunk in chunks])


def below_the_largest(parts: Tensor) -> Tensor:
    return (parts - parts.amax(dim=0)).logsumexp(dim=0)


def below_the_first(chunks: Iterator[Tensor]) -> Tensor:
    """One number for all columns, the first chunk's largest logit, is taken out, and comes back."""
    first = next(chunks)
    largest = first.amax()
    total = (first - largest).exp().sum(dim=0)
    for chunk in chunks:
        total += (chunk - largest).exp().sum(dim=0)
    return total.log() + largest


def whole(scaled: Tensor, text: Tensor, size: int) -> tuple[Tensor, Tensor]:
    logits = scaled @ text.T
    return logits.logsumexp(dim=1), logits.logsumexp(dim=0)


joined = with_columns(lambda chunks: each(chunks).logsumexp(dim=0))


def rounded(scaled: Tensor, text: Tensor, size: int) -> tuple[Tensor, Tensor]:
    rows, columns = joined(scaled, text, size)
    return rows.float(), columns.float()


@exercise(
    inputs=draw_scaled,
    outcome=logsumexps,
    mistakes={
        "exp of a logit above 88 leaves float32: add up logarithms, never their exponentials": (
            with_columns(lambda chunks: each(chunks).exp().sum(dim=0).log())
        ),
        "the logits are clamped, and the loss is another one: all of them must count as they are": (
            with_columns(lambda chunks: each(chunk.clamp(max=80) for chunk in chunks).exp().sum(dim=0).log())
        ),
        "a number taken out of the exponent must come back after the logarithm": (
            with_columns(lambda chunks: below_the_largest(each(chunks)))
        ),
        "this is the largest part: near, but the other chunks count too": (
            with_columns(lambda chunks: each(chunks).amax(dim=0))
        ),
        "logsumexps do not add up: their exponentials do": with_columns(lambda chunks: each(chunks).sum(dim=0)),
        "the columns start at 0, but the logsumexp of nothing is −∞: ln 0": (
            with_columns(lambda chunks: torch.logaddexp(each(chunks).logsumexp(dim=0), torch.zeros(())))
        ),
        "the columns are those of the last chunk alone": with_columns(lambda chunks: each(chunks)[-1]),
        "the last chunk is missing: it may have fewer rows than the others": (
            lambda scaled, text, size: (
                (scaled @ text.T).logsumexp(dim=1),
                joined(scaled[: len(scaled) // size * size], text, size)[1],
            )
        ),
        "rows and columns are exchanged": lambda scaled, text, size: joined(scaled, text, size)[::-1],
        "one number is taken out of all columns, and one far below it becomes ln 0: each needs its own": (
            with_columns(below_the_first)
        ),
        "the whole matrix exists at once: take a few rows of it at a time, and keep none": whole,
        "the results are float32, whatever the inputs are: give what you make the dtype of `scaled`": rounded,
    },
    package=losses._chunked_logsumexps,
)
def chunked_logsumexps(scaled: Tensor, text_features: Tensor, chunk_size: int) -> tuple[Tensor, Tensor]:
    return joined(scaled, text_features, chunk_size)


class Encoder(nn.Module):
    """tanh of a linear layer, which counts the examples whose activations are held."""

    def __init__(self, inputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, 3))
        self.calls = self.held = self.most = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return _Held.apply(x, self.weight, self).tanh() if torch.is_grad_enabled() else (x @ self.weight).tanh()

    def hold(self, examples: int) -> None:
        self.held += examples
        self.most = max(self.most, self.held)


class _Held(torch.autograd.Function):
    """A matrix product that its encoder counts as held until its backward pass, or until its graph is dropped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, encoder: Encoder) -> Tensor:
        ctx.save_for_backward(x)
        ctx.token = _Token(encoder, len(x))
        return x @ weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        ctx.token.release()
        return None, ctx.saved_tensors[0].T @ gradient, None


class _Token:
    def __init__(self, encoder: Encoder, examples: int):
        self.encoder, self.examples = encoder, examples
        encoder.hold(examples)

    def release(self) -> None:
        self.encoder.hold(-self.examples)
        self.examples = 0

    __del__ = release


NOTHING = math.nan  # in place of a loss that is not returned


def left_behind(function: Function, images: Tensor, tokens: Tensor, chunk_size: int) -> dict[str, Any]:
    """The loss, all gradients, and whether more than a chunk's activations were held."""
    torch.manual_seed(3)
    image_encoder, text_encoder = Encoder(images.shape[1]), Encoder(tokens.shape[1])
    scale = nn.Parameter(torch.tensor(2.0))

    def loss(image_features: Tensor, text_features: Tensor) -> Tensor:
        logits = scale.exp() * image_features @ text_features.T
        return (logits.logsumexp(dim=1) + logits.logsumexp(dim=0) - 2 * logits.diag()).mean() / 2

    value = function(image_encoder, text_encoder, images, tokens, loss, chunk_size)
    named = {"the image encoder": image_encoder.weight, "the text encoder": text_encoder.weight, "the scale": scale}
    value = None if value is ... else value
    if value is None and not image_encoder.calls and not text_encoder.calls:
        raise NotSolved
    if value is None:
        return {"loss": NOTHING}
    tied = isinstance(value, Tensor) and value.requires_grad
    found: dict[str, Any] = {"loss": float(value.detach() if tied else value)}
    for name, parameter in named.items():
        found[f"gradient of {name}"] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
    found["what is returned"] = "the loss with its graph" if tied else "the loss"
    most = max(image_encoder.most, text_encoder.most)
    return found | {"activations at one moment": "one chunk" if most <= chunk_size else "more than one chunk"}


def features_of(encode: Function, rows: Tensor, size: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([encode(chunk) for chunk in rows.split(size)])


def second_pass(
    scalar: Callable[[Tensor, Tensor], Tensor] = lambda y, g: (y * g).sum(), sides: slice = slice(None), chunks: int = 99
) -> Function:
    """A gradient cache with some scalar of a chunk's features and their gradients, and some of its parts."""

    def cached(ei: Function, et: Function, images: Tensor, tokens: Tensor, loss: Function, size: int) -> Tensor:
        rows = [(ei, images), (et, tokens)]
        features = [features_of(encode, x, size).requires_grad_() for encode, x in rows]
        value = loss(*features)
        value.backward()
        for (encode, x), feature in list(zip(rows, features, strict=True))[sides]:
            assert feature.grad is not None
            for start in range(0, len(x), size)[:chunks]:
                part = slice(start, start + size)
                scalar(encode(x[part]), feature.grad[part]).backward()
        return value.detach()

    return cached


def with_graph(*arguments: Any) -> Tensor:
    return second_pass()(*arguments).requires_grad_()


def accumulated(ei: Function, et: Function, images: Tensor, tokens: Tensor, loss: Function, size: int) -> float:
    total = 0.0
    for x, y in zip(images.split(size), tokens.split(size), strict=True):
        value = loss(ei(x), et(y)) * len(x) / len(images)
        value.backward()
        total += value.item()
    return total


def at_once(ei: Function, et: Function, images: Tensor, tokens: Tensor, loss: Function, size: int) -> Tensor:
    value = loss(ei(images), et(tokens))
    value.backward()
    return value.detach()


def twice(ei: Function, et: Function, images: Tensor, tokens: Tensor, loss: Function, size: int) -> Tensor:
    """The first pass keeps its graph, and goes backward to the weights by itself; then the second pass does, too."""
    features = [torch.cat([e(x) for x in rows.split(size)]) for e, rows in ((ei, images), (et, tokens))]
    for feature in features:
        feature.retain_grad()
    value = loss(*features)
    value.backward()
    for e, rows, feature in zip((ei, et), (images, tokens), features, strict=True):
        assert feature.grad is not None
        for x, g in zip(rows.split(size), feature.grad.split(size), strict=True):
            e(x).backward(g)
    return value.detach()


def without_the_scale(ei: Function, et: Function, images: Tensor, tokens: Tensor, loss: Function, size: int) -> Tensor:
    features = [features_of(e, rows, size).requires_grad_() for e, rows in ((ei, images), (et, tokens))]
    value = loss(*features)
    for e, rows, g in zip((ei, et), (images, tokens), torch.autograd.grad(value, features), strict=True):
        for x, part in zip(rows.split(size), g.split(size), strict=True):
            e(x).backward(part)
    return value.detach()


def loss_for_each_chunk(ei: Function, et: Function, images: Tensor, tokens: Tensor, loss: Function, size: int) -> Tensor:
    image, text = features_of(ei, images, size), features_of(et, tokens, size)
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        after = start + size
        value = loss(
            torch.cat([image[:start], ei(images[part]), image[after:]]),
            torch.cat([text[:start], et(tokens[part]), text[after:]]),
        )
        value.backward()
    return value.detach()


@exercise(
    inputs=lambda: (torch.randn(8, 5), torch.randn(8, 6), 3),
    outcome=left_behind,
    mistakes={
        "each chunk has a loss of its own: its pairs must meet those of all chunks": accumulated,
        "the whole batch passes the encoders at once: the gradients are right, but all activations are held": at_once,
        "the loss is not returned": lambda *arguments: second_pass()(*arguments) and None,
        "no encoder gets a gradient: each needs a second pass": second_pass(sides=slice(0)),
        "the loss that is returned still holds its graph: return it without gradient": with_graph,
        "the text encoder gets no gradient: it needs a second pass, too": second_pass(sides=slice(1)),
        "the image encoder gets no gradient: it needs a second pass, too": second_pass(sides=slice(1, 2)),
        "the scale, which `loss` holds, gets no gradient: go backward from the loss itself": without_the_scale,
        "the scale's gradient is added once for each chunk: one loss is enough for all chunks": loss_for_each_chunk,
        "the features' gradients are not used: `backward()` of a sum gives each feature a gradient of 1": (
            second_pass(lambda y, g: y.sum())
        ),
        "the weights get their gradient twice: the first pass must leave no graph": twice,
        "only the first chunk reaches the weights": second_pass(chunks=1),
        "the last chunk is missing: it may be smaller than the others": second_pass(chunks=2),
        "the product with the gradients is averaged: add it up": second_pass(lambda y, g: (y * g).mean()),
    },
    package=gradient_cache.cached_backward,
)
def cached_backward(ei: Function, et: Function, images: Tensor, tokens: Tensor, loss: Function, size: int) -> Tensor:
    return second_pass()(ei, et, images, tokens, loss, size)


@exercise(
    inputs=lambda: [(12, 3, 5.0, 90.0), (24, 2, 7.0, 100.0), (6, 6, 1.0, 30.0)],
    mistakes={
        "this is a tower without checkpoints, which keeps all activations": lambda n, k, x, a: n * a,
        "the activations of the segment that is computed again are missing": lambda n, k, x, a: n / k * x,
        "the inputs of the segments are missing": lambda n, k, x, a: k * a,
        "every block's input is counted: one for each segment is kept": lambda n, k, x, a: n * x + k * a,
        "only one block's activations are counted: a segment is computed again as a whole": lambda n, k, x, a: n / k * x + a,
        "there are layers / every segments, each of `every` blocks: the two are exchanged": lambda n, k, x, a: (
            k * x + n / k * a
        ),
        "the activations of all segments are counted: only one segment's exist at a time": lambda n, k, x, a: (
            n / k * x + n * a
        ),
        "the inputs are kept once, and not once more in the backward pass": lambda n, k, x, a: 2 * n / k * x + k * a,
    },
    tolerance=1e-6,
)
def checkpointed_bytes(layers: int, every: int, input_bytes: float, block_bytes: float) -> float:
    return sum(input_bytes for block in range(layers) if block % every == 0) + every * block_bytes


class Processes:
    """Threads that pass for processes: what `torch.distributed` says and sends is answered among them.

    Only what `gather` and `rank` need: the number of processes, a rank for each, `all_gather` and a summing `all_reduce`.
    """

    def __init__(self, size: int):
        self.size, self.local = size, threading.local()
        self.barrier = threading.Barrier(size, timeout=4)
        self.sent: list[Any] = [None] * size

    def exchange(self, tensor: Tensor) -> list[Tensor]:
        self.sent[self.local.rank] = tensor.detach().clone()
        self.barrier.wait()
        received = [sent.clone() for sent in self.sent]
        self.barrier.wait()
        return received

    def all_gather(self, outputs: list[Tensor], tensor: Tensor) -> None:
        for output, received in zip(outputs, self.exchange(tensor), strict=True):
            with torch.no_grad():
                output.copy_(received)

    def all_reduce(self, tensor: Tensor) -> None:
        total = torch.stack(self.exchange(tensor)).sum(dim=0)
        with torch.no_grad():
            tensor.copy_(total)

    @contextmanager
    def connected(self) -> Iterator[None]:
        answers: dict[str, Any] = {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "get_world_size": lambda: self.size,
            "get_rank": lambda: self.local.rank,
            "all_gather": self.all_gather,
            "all_reduce": self.all_reduce,
        }
        with patch.multiple(dist, **answers):
            yield

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """What `work` returns for each rank. The first error of any of them is raised."""
        results: list[Any] = [None] * self.size
        errors: list[BaseException] = []

        def one(rank: int) -> None:
            self.local.rank = rank
            try:
                results[rank] = work(rank)
            except BaseException as error:
                errors.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.size)]
        with self.connected():
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if errors:
            waited = RuntimeError("not every process calls `gather` as often as the others, which wait for it forever")
            raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), waited)
        return results


IN_THE_SCRIPT = {"gather", "rank", "world_size", "torch", "F", "nn", "Tensor"}  # what lesson 10's script gives a loss


def global_names(code: CodeType) -> Iterator[str]:
    """The names that a function takes from outside, those of the functions inside it included."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from global_names(constant)


def in_three_processes(function: Function, images: Tensor, texts: Tensor, scale: float) -> dict[str, Tensor]:
    """The loss of each process, and the gradients after their average over the processes."""
    code = getattr(function, "__code__", None)
    if code and not (function.__module__ or "").startswith("miniclip_utils"):  # a reader's: its source alone is sent
        missing = [n for n in global_names(code) if n not in IN_THE_SCRIPT and not hasattr(builtins, n)]
        if missing:
            raise NameError(f"two other processes run this function, and have no `{missing[0]}`: put it inside")
    processes = Processes(3)

    def work(rank: int) -> tuple[Any, ...]:
        own = [tensor.chunk(3)[rank].clone().requires_grad_() for tensor in (images, texts)]
        logit_scale = torch.tensor(scale, requires_grad=True)
        loss = solved(function(*own, logit_scale))
        if not isinstance(loss, Tensor) or not loss.requires_grad:
            raise TypeError("the loss is no tensor with a gradient: return it without .item() or .detach()")
        loss.backward()
        leaves = [*own, logit_scale]
        return loss.item(), *(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves)

    results = processes.run(work)
    parts = [torch.stack([result[k] for result in results]) / 3 for k in (1, 2, 3)]
    named = dict(zip(("image features", "text features", "scale"), parts, strict=True))
    found = {"loss of each process": torch.tensor([result[0] for result in results])}
    return found | {f"gradient of the {name}": part for name, part in named.items()}


def draw_share() -> tuple[Tensor, Tensor, float]:
    images, texts = F.normalize(torch.randn(2, 12, 5), dim=-1)
    return images, texts, 8.0


def cost(logits: Tensor, first: int) -> Tensor:
    """Mean cross-entropy when row i's own column is first + i."""
    return (logits.logsumexp(dim=1) - logits[:, first : first + len(logits)].diag()).mean()


def numbers_of(rows: Tensor) -> Tensor:
    """The rows of all processes as plain numbers: no gradient travels back."""
    everyone = [torch.empty_like(rows) for _ in range(distributed.world_size())]
    dist.all_gather(everyone, rows)
    return torch.cat(everyone)


def own_rows(
    first: Callable[[int, int], int] = lambda rank, size: rank * size,
    everyone: Callable[[Tensor], Tensor] = lambda rows: distributed.gather(rows),
    parts: tuple[float, float] = (0.5, 0.5),
) -> Function:
    """The loss of a process's own rows, with parts that can be wrong."""

    def loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        start = first(distributed.rank(), len(image))
        image_to_text = cost(scale * image @ everyone(text).T, start)
        text_to_image = cost(scale * text @ everyone(image).T, start)
        return parts[0] * image_to_text + parts[1] * text_to_image

    return loss


def whole_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    logits = scale * distributed.gather(image) @ distributed.gather(text).T
    return (cost(logits, 0) + cost(logits.T, 0)) / 2


def same_modality(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    start = distributed.rank() * len(image)
    of_images = cost(scale * image @ distributed.gather(image).T, start)
    return (of_images + cost(scale * text @ distributed.gather(text).T, start)) / 2


@exercise(
    inputs=draw_share,
    outcome=in_three_processes,
    mistakes={
        "the targets start at 0: your pairs stand from column rank · B on": own_rows(first=lambda rank, size: 0),
        "the targets start at `rank`: your pairs stand from column rank · B on": own_rows(first=lambda rank, size: rank),
        "your rows meet only your own columns: gather the features of all": own_rows(
            first=lambda rank, size: 0, everyone=lambda rows: rows
        ),
        "the loss is right, but no gradient travels back to the other processes: use `gather`": own_rows(
            everyone=numbers_of
        ),
        "one direction is missing: this is only image → text": own_rows(parts=(1, 0)),
        "one direction is missing: this is only text → image": own_rows(parts=(0, 1)),
        "the two directions are added, and not averaged": own_rows(parts=(1, 1)),
        "images are compared with images, and texts with texts": same_modality,
        "the scale is missing": lambda i, t, s: own_rows()(i, t, torch.ones((), requires_grad=True)),
        "no gradient reaches the scale: `.item()` or `.detach()` cuts it off": lambda i, t, s: own_rows()(i, t, s.detach()),
        "this is the loss of the whole batch, in every process: each needs only its own rows": whole_loss,
        "it is divided by the number of processes: the average over them comes later, and once": (
            lambda i, t, s: own_rows()(i, t, s) / 3
        ),
    },
    package=losses.sharded_clip_loss,
)
def sharded_clip_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    return own_rows()(image, text, scale)


@exercise(
    inputs=lambda: [(14e9, 400e6, 32.0, 40e12, False), (2e9, 10e6, 7.0, 3e12, True), (5e9, 2e6, 3.0, 9e12, False)],
    mistakes={
        "this is the forward pass alone: the backward pass costs twice as much again": (
            lambda f, n, e, rate, again: f * n * e / rate / 86_400
        ),
        "the backward pass counts once here: it makes two products for each of the forward pass": (
            lambda f, n, e, rate, again: (3 if again else 2) * f * n * e / rate / 86_400
        ),
        "checkpointing costs nothing here: it is one more forward pass": (
            lambda f, n, e, rate, again: 3 * f * n * e / rate / 86_400
        ),
        "checkpointing is always counted here: look at the last argument": (
            lambda f, n, e, rate, again: 4 * f * n * e / rate / 86_400
        ),
        "checkpointing doubles everything here: it is one more forward pass, and no more backward one": (
            lambda f, n, e, rate, again: (6 if again else 3) * f * n * e / rate / 86_400
        ),
        "these are seconds: a day has 86,400": lambda f, n, e, rate, again: (4 if again else 3) * f * n * e / rate,
        "these are hours: a day has 24": lambda f, n, e, rate, again: (4 if again else 3) * f * n * e / rate / 3_600,
        "this is one epoch: every pair is seen `epochs` times": (
            lambda f, n, e, rate, again: (4 if again else 3) * f * n / rate / 86_400
        ),
    },
    tolerance=1e-6,
)
def gpu_days(forward_flops: float, pairs: float, epochs: float, flops_per_second: float, checkpointing: bool) -> float:
    forward, backward = forward_flops * (1 + checkpointing), 2 * forward_flops
    return epochs * pairs * (forward + backward) / (flops_per_second * 24 * 60 * 60)
