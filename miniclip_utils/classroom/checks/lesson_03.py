"""Checks of lesson 03: words to numbers, attention, masks, the encoder block, where the feature is read, its length."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...tokenizer import EOS, PAD, SOS, UNK, split_words
from . import Function, exercise, solved

NUMBER = {"[PAD]": PAD, "[UNK]": UNK, "[SOS]": SOS, "[EOS]": EOS, ".": 4, "a": 5, "circle": 6, "red": 7}


def row(
    look_up: Callable[[dict[str, int], str], Any] = lambda number, word: number.get(word, UNK),
    split: Callable[[str], Iterable[str]] = split_words,
    lay_out: Callable[[list[Any], int], list[Any]] = lambda words, room: [SOS, *words, EOS] + [PAD] * room,
) -> Function:
    """Splits a text, looks each word up and lays the numbers out, with some room left in the row."""

    def encode(text: str, number: dict[str, int], context_length: int) -> list[Any]:
        numbers = [look_up(number, word) for word in split(text)]
        return lay_out(numbers, context_length - 2 - len(numbers))

    return encode


def as_list(function: Function, text: str, number: dict[str, int], context_length: int) -> object:
    row = function(text, number, context_length)
    return row.tolist() if hasattr(row, "tolist") else row


@exercise(
    inputs=lambda: [(text, NUMBER, 7) for text in ("A red circle.", "a purple circle", "red")],
    outcome=as_list,
    mistakes={
        "a word became None: what `get` returns for an unknown word is its second argument": row(dict.get),
        "it holds the text 'a': look up its number": row(lambda number, word: word),
        "the captions have [15, 17, 7] numbers, one for each letter: each needs 7, the `context_length` here": (
            row(split=list)
        ),
        "the captions have [6, 5, 3] numbers: fill each up with [PAD] to `context_length`, 7 here": (
            row(lay_out=lambda words, room: [SOS, *words, EOS])
        ),
        "the unknown word became [PAD], which the tower does not see: it is [UNK]": row(lambda n, word: n.get(word, PAD)),
        "the unknown word is left out: it becomes [UNK], so that the tower knows of a gap": (
            row(split=lambda text: filter(NUMBER.get, split_words(text)))
        ),
        "[EOS] is missing after the last word": row(lay_out=lambda words, room: [SOS, *words] + [PAD] * (room + 1)),
        "[SOS] is missing before the first word": row(lay_out=lambda words, room: [*words, EOS] + [PAD] * (room + 1)),
        "[SOS] and [EOS] are missing around the words": row(lay_out=lambda words, room: words + [PAD] * (room + 2)),
        "[EOS] stands after the padding: it belongs right after the last word": (
            row(lay_out=lambda words, room: [SOS, *words] + [PAD] * room + [EOS])
        ),
        "the padding stands in front: it belongs after [EOS]": (
            row(lay_out=lambda words, room: [PAD] * room + [SOS, *words, EOS])
        ),
        "it is filled up with [UNK]: the end of a caption is [PAD], which the mask hides": (
            row(lay_out=lambda words, room: [SOS, *words, EOS] + [UNK] * room)
        ),
        "the full stop sticks to its word, which is then unknown: use `split_words`": row(split=lambda t: t.lower().split()),
        "capitals and the full stop make words unknown: use `split_words`": row(split=str.split),
    },
)
def encode(text: str, number: dict[str, int], context_length: int) -> list[int]:
    row = [SOS, EOS] + [PAD] * (context_length - 2)
    for place, word in enumerate(split_words(text), start=1):
        row[place : place + 2] = [number.get(word, UNK), EOS]
    return row


def draw_attention() -> dict[str, tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    q, k, v = torch.randn(3, 2, 3, 5, 8).unbind(0)  # each (N, num_heads, L, head width)
    causal = torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 1, 5, 5)
    # What stands where nobody looks is huge: an answer that only dampens it is found out.
    huge = torch.cat([v[..., :4, :], 100 + v[..., 4:, :]], dim=-2)
    return {"": (q, k, v, None), "with a mask": (q, k, huge, causal)}


def scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / math.sqrt(q.shape[-1])


def attend(scale: float = 8**-0.5, dim: int = -1) -> Function:
    """Attention without a mask."""
    return lambda q, k, v, mask: (scale * q @ k.mT).softmax(dim) @ v


def masked(hide: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """Attention that is right without a mask. With one, `hide` gives what the softmax takes: scores, mask → scores."""
    return lambda q, k, v, mask: (scores(q, k) if mask is None else hide(scores(q, k), mask)).softmax(-1) @ v


@exercise(
    inputs=draw_attention,
    mistakes={
        "the scaling is missing: divide the scores by the root of the head's width": attend(scale=1),
        "the scores are divided by the width: divide by its root": attend(scale=1 / 8),
        "the scores are divided by the root of the length: it is the root of the head's width": attend(scale=5**-0.5),
        "the scaling comes after the softmax: scale the scores, or the weights do not add up to 1": (
            lambda q, k, v, mask: (q @ k.mT).softmax(-1) / math.sqrt(8) @ v
        ),
        "the softmax runs over the queries (dim=-2): the weights of each query, a row, must add up to 1": attend(dim=-2),
        "the softmax is missing: the weights of a row must be positive and add up to 1": lambda q, k, v, m: scores(q, k) @ v,
        "queries and keys are swapped: the rows of the scores are queries": lambda q, k, v, m: attend()(k, q, v, m),
        "these are the weights: mix the values with them": lambda q, k, v, mask: scores(q, k).softmax(-1),
        "the keys are mixed: the weights mix the values": lambda q, k, v, mask: scores(q, k).softmax(-1) @ k,
        "the mask is not used": attend(),
        "the mask is turned round: True is where a query may look": masked(lambda s, m: s.where(~m, -math.inf)),
        "the mask comes after the softmax: the weights that are left no longer add up to 1": (
            lambda q, k, v, mask: (scores(q, k).softmax(-1) * (1 if mask is None else mask)) @ v
        ),
        "hidden scores are set to 0, and exp(0) = 1 is a weight like others: set them to −inf": masked(lambda s, m: s * m),
        "the mask is transposed: its rows are queries, its columns keys": masked(lambda s, m: s.where(m.mT, -math.inf)),
    },
)
def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def mask_or_type(function: Function, argument: Tensor | int) -> object:
    """All masks of another type than bool are one mistake, whatever they hide."""
    mask = solved(function(argument))
    if not isinstance(mask, Tensor) or mask.dtype == torch.bool:
        return mask
    return "additive" if (mask == -math.inf).any() else mask.dtype


def of_other_types(mask: Function) -> dict[str, Function]:
    """The mistakes in the type of a mask."""
    return {
        "this is the additive kind of mask, 0 and −inf: `MultiHeadAttention` takes True and False": (
            lambda argument: mask(argument).float().log()
        ),
        **{
            f"it is of type {dtype}: a mask is torch.bool, as a comparison returns it": (
                lambda argument, dtype=dtype: mask(argument).to(dtype)
            )
            for dtype in (torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8)
        },
    }


def keys(visible: Tensor) -> Tensor:
    """bool (N, L) → (N, 1, 1, L)."""
    return visible[:, None, None, :]


@exercise(
    inputs=lambda: (torch.tensor([[2, 5, 1, 6, 3, 0, 0], [2, 5, 7, 6, 4, 3, 0], [2, 3, 0, 0, 0, 0, 0]])[torch.randperm(3)],),
    outcome=mask_or_type,
    mistakes={
        **of_other_types(lambda tokens: keys(tokens != PAD)),
        "it is turned round, True at the padding as `nn.MultiheadAttention` wants it: here True is what may be seen": (
            lambda tokens: keys(tokens == PAD)
        ),
        "its shape is (N, L), which does not fit (N, num_heads, L, L): add axes for heads and queries": lambda t: t != PAD,
        "it lacks an axis: (N, 1, L) is taken for (1, N, L), and texts are mixed up with heads": (
            lambda tokens: (tokens != PAD)[:, None, :]
        ),
        "it hides padding as queries (rows): hide it as keys (columns), the last axis": lambda t: keys(t != PAD).mT,
        "it hides [UNK] too: an unknown word is not padding": lambda tokens: keys((tokens != PAD) & (tokens != UNK)),
        "it hides the special tokens too: only [PAD] is padding": lambda tokens: keys(tokens > EOS),
        "it hides [EOS] too: only [PAD] is padding": lambda tokens: keys((tokens != PAD) & (tokens != EOS)),
    },
)
def padding_mask(tokens: Tensor) -> Tensor:
    return torch.tensor([[[[token != PAD for token in row]]] for row in tokens.tolist()], device=tokens.device)


def ones(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool)


@exercise(
    inputs=lambda: {"": (5,), "for a length of 3": (3,)},
    outcome=mask_or_type,
    mistakes={
        **of_other_types(lambda n: ones(n).tril()),
        "it looks ahead: a query (row) may look at keys (columns) at or before its own place": lambda n: ones(n).triu(),
        "it is turned round, True where a token may not look: here True is what may be seen": lambda n: ones(n).triu(1),
        "a token does not see itself: then the first one sees nothing, and its softmax is 0/0": lambda n: ones(n).tril(-1),
        "everything is visible: nothing is hidden from anyone": ones,
        "a token sees only itself: it may look at those before it, too": lambda n: torch.eye(n, dtype=torch.bool),
        "its shape is (5, 5), and should be (3, 3)": lambda n: ones(5).tril(),
    },
)
def causal_mask(length: int) -> Tensor:
    return torch.tensor([[key <= query for key in range(length)] for query in range(length)])


def draw_block() -> tuple[Tensor, nn.Module, Function, nn.Module, nn.Module, Tensor]:
    norm_1, norm_2 = nn.LayerNorm(8), nn.LayerNorm(8)
    for parameter in (*norm_1.parameters(), *norm_2.parameters()):
        nn.init.normal_(parameter)
    mlp = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))

    def attention(x: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)

    return torch.randn(3, 4, 8), norm_1, attention, norm_2, mlp, ones(4).tril()


@exercise(
    inputs=draw_block,
    mistakes={
        "the mask is not passed on to the attention": lambda x, n1, a, n2, m, mask: (y := x + a(n1(x))) + m(n2(y)),
        "this is post-LayerNorm, as in the first Transformer: normalise what goes into attention and MLP, "
        "not the sum": lambda x, n1, a, n2, m, mask: n2((y := n1(x + a(x, mask))) + m(y)),
        "the LayerNorms are missing": lambda x, n1, a, n2, m, mask: (y := x + a(x, mask)) + m(y),
        "both shortcuts are missing": lambda x, n1, a, n2, m, mask: m(n2(a(n1(x), mask))),
        "the shortcut around the attention is missing": lambda x, n1, a, n2, m, mask: (y := a(n1(x), mask)) + m(n2(y)),
        "the shortcut around the MLP is missing": lambda x, n1, a, n2, m, mask: m(n2(x + a(n1(x), mask))),
        "the MLP's result is added to the block's input: what the attention found is lost": (
            lambda x, n1, a, n2, m, mask: x + m(n2(x + a(n1(x), mask)))
        ),
        "the MLP reads the block's input: it reads what the attention left": (
            lambda x, n1, a, n2, m, mask: x + a(n1(x), mask) + m(n2(x))
        ),
        "both shortcuts carry the normalised x: they carry x as it is": (
            lambda x, n1, a, n2, m, mask: (y := n2(n1(x) + a(n1(x), mask))) + m(y)
        ),
        "the first shortcut carries the normalised x: it carries x as it is": (
            lambda x, n1, a, n2, m, mask: (y := n1(x) + a(n1(x), mask)) + m(n2(y))
        ),
        "norm_1 is used twice: the MLP has a LayerNorm of its own": (
            lambda x, n1, a, n2, m, mask: (y := x + a(n1(x), mask)) + m(n1(y))
        ),
        "the MLP reads what is not normalised: norm_2 is missing": (
            lambda x, n1, a, n2, m, mask: (y := x + a(n1(x), mask)) + m(y)
        ),
        "the attention reads what is not normalised: norm_1 is missing": (
            lambda x, n1, a, n2, m, mask: (y := x + a(x, mask)) + m(n2(y))
        ),
        "norm_1 and norm_2 are exchanged": lambda x, n1, a, n2, m, mask: (y := x + a(n2(x), mask)) + m(n1(y)),
        "the MLP is missing": lambda x, n1, a, n2, m, mask: x + a(n1(x), mask),
    },
)
def encoder_block(
    x: Tensor, norm_1: Function, attention: Function, norm_2: Function, mlp: Function, mask: Tensor | None
) -> Tensor:
    x = x + attention(norm_1(x), mask)
    return x + mlp(norm_2(x))


def at(x: Tensor, places: Tensor) -> Tensor:
    """Of each caption, the vector at its place: (N, L, width) and (N,) → (N, width)."""
    return torch.stack([vectors[place] for vectors, place in zip(x, places.tolist(), strict=True)])


def ends(tokens: Tensor) -> Tensor:
    return torch.tensor([row.index(EOS) for row in tokens.tolist()])


@exercise(
    inputs=lambda: (
        torch.randn(4, 6, 5),
        torch.tensor([[2, 5, 3, 0, 0, 0], [2, 9, 5, 6, 7, 3], [2, 5, 8, 6, 3, 0], [2, 3, 0, 0, 0, 0]]),
    ),
    mistakes={
        "it reads the last place, which is padding in all but the longest caption": lambda x, tokens: x[:, -1],
        "it reads at the largest number: `tokens.argmax` finds [EOS] in CLIP's vocabulary, where it is the last, "
        "but here [EOS] is 3": lambda x, tokens: at(x, tokens.argmax(dim=1)),
        "it reads [SOS]: in a causal tower that one has seen nothing but itself": lambda x, tokens: x[:, 0],
        "it reads one place too far, at the first padding (or around to [SOS])": (
            lambda x, tokens: at(x, (tokens == PAD).int().argmax(dim=1))
        ),
        "it reads one place too far, at the first padding": lambda x, tokens: at(x, (ends(tokens) + 1).clamp(max=5)),
        "it reads the last word, one place before [EOS]": lambda x, tokens: at(x, ends(tokens) - 1),
        "each caption is read at every caption's [EOS]: pair rows with places, `x[torch.arange(n), places]`": (
            lambda x, tokens: x[:, ends(tokens)]
        ),
        "it keeps an axis of length 1: one vector for each caption is (N, width)": (
            lambda x, tokens: at(x, ends(tokens))[:, None]
        ),
        "it is the mean over all places, padding included": lambda x, tokens: x.mean(dim=1),
    },
)
def read_at_eos(x: Tensor, tokens: Tensor) -> Tensor:
    return at(x, ends(tokens))


def draw_feature() -> tuple[Tensor, nn.LayerNorm, Tensor]:
    norm = nn.LayerNorm(8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return 3 + 2 * torch.randn(5, 8), norm, torch.randn(8, 6)


def unit(rows: Tensor) -> Tensor:
    return rows / rows.square().sum(dim=1, keepdim=True).sqrt()


def layer_norm(rows: Tensor) -> Tensor:
    return F.layer_norm(rows, rows.shape[1:])


def ending(finish: Callable[[Tensor], Tensor]) -> Function:
    """The right LayerNorm and projection, and then `finish`."""
    return lambda x, norm, w: finish(norm(x) @ w)


@exercise(
    inputs=draw_feature,
    mistakes={
        "the L2 norm is missing: after the projection the vectors have any length": lambda x, norm, w: norm(x) @ w,
        "the LayerNorm is missing: it comes before the projection": lambda x, norm, w: unit(x @ w),
        "LayerNorm and L2 norm are both missing": lambda x, norm, w: x @ w,
        "a LayerNorm stands where the L2 norm belongs: it gives length √D, not 1": ending(layer_norm),
        "it is a LayerNorm of the projection: L2 belongs there, and the LayerNorm before it": (
            lambda x, norm, w: layer_norm(x @ w)
        ),
        "there is a LayerNorm after the projection too: it shifts the mean, and so the direction": (
            ending(lambda rows: unit(layer_norm(rows)))
        ),
        "a softmax stands where the L2 norm belongs: all coordinates turn positive, and no two vectors can point "
        "in opposite directions": ending(lambda rows: rows.softmax(1)),
        "a softmax squeezes the vector before the L2 norm: all coordinates turn positive": (
            ending(lambda rows: unit(rows.softmax(1)))
        ),
        "the L2 norm comes before the projection, which then changes the lengths again": lambda x, n, w: unit(n(x)) @ w,
        "the norm is taken over the batch (dim=0): each row needs length 1 of its own": ending(lambda y: unit(y.T).T),
        "it is divided by the squared length: divide by the length": ending(lambda y: y / y.square().sum(1, keepdim=True)),
    },
)
def text_embedding(x: Tensor, norm: nn.LayerNorm, text_weight: Tensor) -> Tensor:
    return unit(norm(x) @ text_weight)
