"""Checks of lesson 03: the tokenizer, multi-head attention, the encoder block, the text tower, and its parameters."""

import math
from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import text_encoder, transformer
from ...tokenizer import EOS, PAD, SOS, UNK, split_words
from . import Arguments, Function, exercise, solved

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
    inputs=lambda: [("A red circle.", NUMBER, 7), ("a purple circle", NUMBER, 8), ("red", NUMBER, 7)],
    outcome=as_list,
    mistakes={
        "a word became None: what `get` returns for an unknown word is its second argument": row(dict.get),
        "it holds the text 'a': look up its number": row(lambda number, word: word),
        "the captions have [15, 17, 7] numbers, one for each letter: each needs `context_length`, 7 or 8 here": (
            row(split=list)
        ),
        "the captions have [6, 5, 3] numbers: fill each up with [PAD] to `context_length`, 7 or 8 here": (
            row(lay_out=lambda words, room: [SOS, *words, EOS])
        ),
        "the unknown word became [PAD], which the tower does not see: it is [UNK]": row(lambda n, word: n.get(word, PAD)),
        "the unknown word is left out: it becomes [UNK], so that the other words keep their positions": (
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
    for position, word in enumerate(split_words(text), start=1):
        row[position : position + 2] = [number.get(word, UNK), EOS]
    return row


def built(answer: Function, sizes: Arguments) -> nn.Module:
    """The answer's module. What an earlier exercise builds is there, even if that one's cell was not run.

    Its weights depend on their names and shapes alone.
    """
    names = getattr(answer.__init__, "__globals__", {})
    parts = {"MultiHeadAttention": Attention, "EncoderBlock": Block}
    with patch.dict(names, {name: part for name, part in parts.items() if name not in names}):
        module = solved(answer(*sizes))
    generator = torch.Generator().manual_seed(0)
    for _, parameter in sorted(module.named_parameters()):
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    return module


def output_of(answer: Function, sizes: Arguments, x: Tensor, *mask: Tensor | None) -> Tensor:
    """What a module returns; an error in its backward pass, which an in-place operation can cause, is raised too."""
    module = built(answer, sizes)
    if x.is_floating_point():
        x = x.requires_grad_().clone()
    output = solved(module(x, *mask))
    if isinstance(output, Tensor):
        output.sum().backward()
    return output


def causal(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


def draw_attention() -> dict[str, Arguments]:
    # What nobody may see is large: an answer that only dampens it is found out.
    last_is_large = torch.randn(2, 5, 12)
    last_is_large[:, 4] *= 30
    padding = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()[:, None, None]  # (N, 1, 1, L)
    return {
        "": ((16, 2), torch.randn(3, 6, 16), None),
        "with a causal mask": ((12, 3), last_is_large, causal(5)),
        "with a padding mask": ((8, 2), torch.randn(3, 4, 8), padding),
    }


def split_heads(module: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values, each (N, num_heads, L, head width)."""
    heads = (part.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for part in module.qkv(x).chunk(3, dim=-1))
    return tuple(heads)


def join_heads(mixed: Tensor) -> Tensor:
    return mixed.transpose(1, 2).flatten(2)


class Attention(transformer.MultiHeadAttention):
    """The parameters are the package's, since the stub gives them; how they are used is not."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = split_heads(self, x)
        return self.out(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))


Mix = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]  # q, k, v, mask → (N, num_heads, L, head width)


def mixing(
    mix: Mix,
    split: Callable[..., tuple[Tensor, ...]] = split_heads,
    join: Callable[[Tensor], Tensor] = join_heads,
    out: bool = True,
) -> type:
    class Mistaken(Attention):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            q, k, v = split(self, x)
            mixed = join(mix(q, k, v, mask))
            return self.out(mixed) if out else mixed

    return Mistaken


def scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / math.sqrt(q.shape[-1])


def hidden(scores: Tensor, mask: Tensor | None, value: float = -math.inf) -> Tensor:
    return scores if mask is None else scores.masked_fill(~mask, value)


def right_mix(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return hidden(scores(q, k), mask).softmax(-1) @ v


def scaled(factor: Callable[[Tensor], float], dim: int = -1) -> Mix:
    return lambda q, k, v, mask: hidden(q @ k.mT * factor(q), mask).softmax(dim) @ v


def masked(hide: Callable[[Tensor, Tensor], Tensor]) -> type:
    """Right without a mask. With one, `hide` gives what the softmax takes: scores, mask → scores."""
    return mixing(lambda q, k, v, mask: (scores(q, k) if mask is None else hide(scores(q, k), mask)).softmax(-1) @ v)


def other_layout(module: Any, x: Tensor) -> tuple[Tensor, ...]:
    """As if each head's q, k and v stood side by side."""
    return module.qkv(x).unflatten(-1, (module.num_heads, 3, -1)).permute(3, 0, 2, 1, 4).unbind()


def without_transpose(module: Any, x: Tensor) -> tuple[Tensor, ...]:
    n, length, width = x.shape
    shape = (n, module.num_heads, length, width // module.num_heads)
    return tuple(part.reshape(shape) for part in module.qkv(x).chunk(3, dim=-1))


WIDTH = {6: 16, 5: 12, 4: 8}  # of the layer, by the length of its input, in `draw_attention`


@exercise(
    inputs=draw_attention,
    outcome=output_of,
    package=transformer.MultiHeadAttention,
    mistakes={
        "the scaling is missing: divide the scores by the root of the head's width": mixing(scaled(lambda q: 1)),
        "the scores are divided by the head's width: divide by its root": mixing(scaled(lambda q: 1 / q.shape[-1])),
        "the scores are divided by the root of the layer's width: each head has only its own part of it": (
            mixing(scaled(lambda q: WIDTH[q.shape[-2]] ** -0.5))
        ),
        "the scores are divided by the root of the length: it is the root of the head's width": (
            mixing(scaled(lambda q: q.shape[-2] ** -0.5))
        ),
        "the scaling comes after the softmax: scale the scores, or the weights do not add up to 1": (
            mixing(lambda q, k, v, mask: hidden(q @ k.mT, mask).softmax(-1) / math.sqrt(q.shape[-1]) @ v)
        ),
        "the softmax runs over the queries (dim=-2): the weights of each query, a row, must add up to 1": (
            mixing(scaled(lambda q: q.shape[-1] ** -0.5, dim=-2))
        ),
        "the softmax is missing: the weights of a row must be positive and add up to 1": (
            mixing(lambda q, k, v, mask: hidden(scores(q, k), mask, 0) @ v)
        ),
        "queries and keys are swapped: the rows of the scores are queries": (
            mixing(lambda q, k, v, mask: right_mix(k, q, v, mask))
        ),
        "the keys are mixed: the weights mix the values": mixing(lambda q, k, v, mask: right_mix(q, k, k, mask)),
        "queries, keys and values come from `qkv` in this order: they are mixed up": (
            mixing(lambda q, k, v, mask: right_mix(k, v, q, mask))
        ),
        "there is one wide head: cut the width into `num_heads` parts": (
            mixing(right_mix, split=lambda module, x: module.qkv(x)[:, None].chunk(3, dim=-1))
        ),
        "a view alone cuts heads out of the positions: view as (N, L, num_heads, head width), then swap two axes": (
            mixing(right_mix, split=without_transpose)
        ),
        "the outputs of `qkv` are first all queries, then all keys, then all values; here each head has its own three": (
            mixing(right_mix, split=other_layout)
        ),
        "the heads are joined without bringing their axis back behind L: positions and heads are mixed up": (
            mixing(right_mix, join=lambda mixed: mixed.reshape(len(mixed), mixed.shape[2], -1))
        ),
        "the last linear layer, `out`, is missing": mixing(right_mix, out=False),
        "the mask is not used": mixing(lambda q, k, v, mask: right_mix(q, k, v, None)),
        "the mask is turned round: True is where a query may look": masked(lambda s, m: s.masked_fill(m, -math.inf)),
        "the mask comes after the softmax: the weights that are left no longer add up to 1": (
            mixing(lambda q, k, v, mask: (scores(q, k).softmax(-1) * (1 if mask is None else mask)) @ v)
        ),
        "hidden scores are set to 0, and exp(0) = 1 is a weight like others: set them to −inf": masked(lambda s, m: s * m),
        "the mask is transposed: its rows are queries, its columns keys": (
            masked(lambda s, m: s.masked_fill(~m.mT, -math.inf))
        ),
    },
)
class MultiHeadAttention(Attention):
    pass


class Block(transformer.EncoderBlock):
    def __init__(self, width: int, num_heads: int, activation: type[nn.Module] = nn.GELU):
        super().__init__(width, num_heads, activation)
        self.attention = Attention(width, num_heads)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        attended = x + self.attention(F.layer_norm(x, x.shape[-1:], self.norm_1.weight, self.norm_1.bias), mask)
        first, activation, last = (self.mlp[0], self.mlp[1], self.mlp[2])
        hidden = F.linear(self.norm_2(attended), first.weight, first.bias)  # type: ignore[arg-type]
        return attended + F.linear(activation(hidden), last.weight, last.bias)  # type: ignore[arg-type]


def wired(forward: Function) -> type:
    """A block of a function of x, its first LayerNorm, attention, second LayerNorm, MLP, and the mask."""

    class Mistaken(Block):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return forward(x, self.norm_1, self.attention, self.norm_2, self.mlp, mask)

    return Mistaken


@exercise(
    inputs=lambda: [((8, 2), torch.randn(3, 4, 8), causal(4)), ((12, 3), torch.randn(2, 5, 12), causal(5))],
    outcome=output_of,
    package=transformer.EncoderBlock,
    mistakes={
        "the mask is not passed on to the attention": wired(lambda x, n1, a, n2, m, mask: (y := x + a(n1(x))) + m(n2(y))),
        "this is post-LayerNorm, as in the first Transformer: normalise what goes into attention and MLP, not the sum": (
            wired(lambda x, n1, a, n2, m, mask: n2((y := n1(x + a(x, mask))) + m(y)))
        ),
        "the LayerNorms are missing": wired(lambda x, n1, a, n2, m, mask: (y := x + a(x, mask)) + m(y)),
        "both shortcuts are missing": wired(lambda x, n1, a, n2, m, mask: m(n2(a(n1(x), mask)))),
        "the shortcut around the attention is missing": (
            wired(lambda x, n1, a, n2, m, mask: (y := a(n1(x), mask)) + m(n2(y)))
        ),
        "the shortcut around the MLP is missing": wired(lambda x, n1, a, n2, m, mask: m(n2(x + a(n1(x), mask)))),
        "the MLP's result is added to the block's input: what the attention found is lost": (
            wired(lambda x, n1, a, n2, m, mask: x + m(n2(x + a(n1(x), mask))))
        ),
        "the MLP reads the block's input: it reads what the attention left": (
            wired(lambda x, n1, a, n2, m, mask: x + a(n1(x), mask) + m(n2(x)))
        ),
        "both shortcuts carry the normalised x: they carry x as it is": (
            wired(lambda x, n1, a, n2, m, mask: (y := n2(n1(x) + a(n1(x), mask))) + m(y))
        ),
        "the first shortcut carries the normalised x: it carries x as it is": (
            wired(lambda x, n1, a, n2, m, mask: (y := n1(x) + a(n1(x), mask)) + m(n2(y)))
        ),
        "norm_1 is used twice: the MLP has a LayerNorm of its own": (
            wired(lambda x, n1, a, n2, m, mask: (y := x + a(n1(x), mask)) + m(n1(y)))
        ),
        "the MLP reads what is not normalised: norm_2 is missing": (
            wired(lambda x, n1, a, n2, m, mask: (y := x + a(n1(x), mask)) + m(y))
        ),
        "the attention reads what is not normalised: norm_1 is missing": (
            wired(lambda x, n1, a, n2, m, mask: (y := x + a(x, mask)) + m(n2(y)))
        ),
        "norm_1 and norm_2 are exchanged": wired(lambda x, n1, a, n2, m, mask: (y := x + a(n2(x), mask)) + m(n1(y))),
        "the MLP is missing": wired(lambda x, n1, a, n2, m, mask: x + a(n1(x), mask)),
    },
)
class EncoderBlock(Block):
    pass


CAPTIONS = [[2, 5, 1, 3, 0, 0, 0], [2, 9, 5, 6, 7, 4, 3], [2, 5, 8, 6, 4, 3, 0], [2, 3, 0, 0, 0, 0, 0]]


def draw_tokens() -> dict[str, Arguments]:
    sizes = (10, 8, 8, 2, 2)  # vocabulary, context length (one more than there are tokens), width, layers, heads
    tokens = torch.tensor(CAPTIONS)
    return {
        "read at [CLS]": (sizes, tokens[torch.randperm(4)]),
        "read at [EOS]": ((*sizes, EOS), tokens[torch.randperm(4)]),
        "read at another `eos`, 6": ((*sizes, 6), tokens[1:3, [0, 1, 2, 3, 5, 6, 4]][torch.randperm(2)]),
    }


class Tower(text_encoder.TextTransformer):
    """The parameters are the package's, since the stub gives them; how they are used is not."""

    def __init__(
        self, vocab_size: int, context_length: int, width: int, layers: int = 3, num_heads: int = 4, eos: int | None = None
    ):
        super().__init__(vocab_size, context_length, width, layers, num_heads, eos)
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """Each caption alone, cut off where nothing more counts, so that no mask for padding is needed."""
        return torch.stack([self.alone(caption) for caption in tokens])

    def alone(self, caption: Tensor) -> Tensor:
        numbers = [*caption.tolist(), PAD]
        length = numbers.index(PAD) if self.eos is None else numbers.index(self.eos) + 1
        x = self.token_embedding(caption[:length]) + self.positional_embedding[:length]
        if self.eos is None:
            x = torch.vstack([self.cls_token, x])
        x = x[None]
        for block in self.blocks:
            x = block(x, None if self.eos is None else causal(length))
        return self.norm(x)[0, 0 if self.eos is None else -1]


def visible(tokens: Tensor) -> Tensor:
    """bool (N, L) → (N, 1, 1, 1 + L), with [CLS] visible in front."""
    return F.pad(tokens, (1, 0), value=True)[:, None, None]


def at(x: Tensor, positions: Tensor) -> Tensor:
    """Of each caption, the vector at its position: (N, L, width) and (N,) → (N, width)."""
    return torch.stack([vectors[position] for vectors, position in zip(x, positions.tolist(), strict=True)])


def ends(tokens: Tensor, eos: int) -> Tensor:
    return torch.tensor([row.index(eos) for row in tokens.tolist()])


def tower(
    padding: Callable[[Tensor], Tensor | None] = lambda tokens: visible(tokens != PAD),
    order: Callable[[int], Tensor | None] = causal,
    read: Callable[[Tensor, Tensor, int], Tensor] = lambda x, tokens, eos: at(x, ends(tokens, eos)),
    positions: float = 1,
    norm: bool = True,
    cls: Callable[[Tensor], Tensor] = lambda x: x[:, 0],
) -> type:
    """A tower of a mask of tokens for [CLS], a mask of the length for [EOS], and where it is read."""

    class Mistaken(Tower):
        def forward(self, tokens: Tensor) -> Tensor:
            n, length = tokens.shape
            x = self.token_embedding(tokens) + positions * self.positional_embedding[:length]
            if self.eos is None:
                x = torch.cat([self.cls_token.expand(n, 1, -1), x], dim=1)
            for block in self.blocks:
                x = block(x, padding(tokens) if self.eos is None else order(length))
            if norm:
                x = self.norm(x)
            return cls(x) if self.eos is None else read(x, tokens, self.eos)

    return Mistaken


@exercise(
    inputs=draw_tokens,
    outcome=output_of,
    package=text_encoder.TextTransformer,
    mistakes={
        "the padding mask is turned round, True at the padding as `nn.MultiheadAttention` takes it: here True is visible": (
            tower(padding=lambda tokens: ~visible(tokens != PAD))
        ),
        "the padding mask is turned round but for [CLS]: here True is visible, and only words should be": (
            tower(padding=lambda tokens: visible(tokens == PAD))
        ),
        "it reads at the largest number: `argmax` of the tokens finds the end in CLIP's vocabulary, but here [EOS] is 3": (
            tower(read=lambda x, tokens, eos: at(x, tokens.argmax(dim=1)))
        ),
        "[CLS] is hidden as a key: only [PAD] is padding": (
            tower(padding=lambda tokens: F.pad(tokens != PAD, (1, 0), value=False)[:, None, None])
        ),
        "there is no padding mask: [PAD] takes part in every softmax": tower(padding=lambda tokens: None),
        "the padding mask hides [UNK] too: an unknown word is no padding": tower(padding=lambda t: visible(t > UNK)),
        "the padding mask hides [EOS] too: only [PAD] is padding": (
            tower(padding=lambda tokens: visible((tokens != PAD) & (tokens != EOS)))
        ),
        "the [CLS] tower is causal, so that [CLS] in front sees nothing but itself": (
            tower(padding=lambda tokens: causal(1 + tokens.shape[1]))
        ),
        "it reads the last position, which is padding in all but the longest captions": (
            tower(read=lambda x, tokens, eos: x[:, -1])
        ),
        "it reads the last position: [CLS] stands in front": tower(cls=lambda x: x[:, -1]),
        "it reads [SOS]: [CLS] stands before it": tower(cls=lambda x: x[:, 1]),
        "it reads [SOS]: in a causal tower that position has seen nothing but itself": (
            tower(read=lambda x, tokens, eos: x[:, 0])
        ),
        "it reads one position too far": (
            tower(read=lambda x, tokens, eos: at(x, (ends(tokens, eos) + 1).clamp(max=tokens.shape[1] - 1)))
        ),
        "it reads the last word, one position before [EOS]": tower(read=lambda x, t, eos: at(x, ends(t, eos) - 1)),
        "it reads the last token that is not [PAD]: find where `self.eos` stands": (
            tower(read=lambda x, tokens, eos: at(x, (tokens != PAD).sum(dim=1) - 1))
        ),
        "it reads at number 3, whatever `eos` is: the number is `self.eos`": (
            tower(read=lambda x, tokens, eos: at(x, ends(tokens, EOS)))
        ),
        "it is the mean over all positions, padding included": tower(read=lambda x, tokens, eos: x.mean(dim=1)),
        "the causal mask is turned round: a position sees what comes after it": tower(order=lambda n: causal(n).T),
        "there is no causal mask: every position sees all others, padding too": tower(order=lambda n: None),
        "the positional embedding is missing: without it the tower cannot tell the order of the words": tower(positions=0),
        "the last LayerNorm, `norm`, is missing": tower(norm=False),
    },
)
class TextTransformer(Tower):
    pass


def sizes_of_towers() -> list[tuple[int, int, int, int]]:
    return [(33, 10, 64, 3), (40, 12, 32, 1), (100, 7, 16, 2)]


def counted(
    block: Callable[[int], int] = lambda w: 12 * w * w + 13 * w,
    rest: Callable[[int, int, int], int] = lambda v, c, w: v * w + c * w + 2 * w,
    stacked: Callable[[int, int], int] = lambda layers, one: layers * one,
) -> Function:
    return lambda v, c, w, layers: stacked(layers, block(w)) + rest(v, c, w)


@exercise(
    inputs=sizes_of_towers,
    mistakes={
        "the biases of the linear layers are missing: 9 · width in a block": counted(lambda w: 12 * w * w + 4 * w),
        "the LayerNorms in the blocks are missing: a gain and a bias of `width` numbers, twice": (
            counted(lambda w: 12 * w * w + 9 * w)
        ),
        "biases and LayerNorms in the blocks are missing": counted(lambda w: 12 * w * w),
        "there are 2 · width too few in each block: it has two LayerNorms, each with a gain and a bias": counted(
            lambda w: 12 * w * w + 11 * w
        ),
        "the LayerNorms have a gain and a bias: one of them is missing": (
            counted(lambda w: 12 * w * w + 11 * w, lambda v, c, w: v * w + c * w + w)
        ),
        "the last linear layer of the attention, `out`, is missing": counted(lambda w: 11 * w * w + 12 * w),
        "the second layer of the MLP is missing": counted(lambda w: 8 * w * w + 12 * w),
        "the MLP's hidden layer is 4 · width wide: it is counted as if it were `width`": (
            counted(lambda w: 6 * w * w + 10 * w)
        ),
        "`qkv` makes three vectors of each token: it is counted once": counted(lambda w: 10 * w * w + 11 * w),
        "the last LayerNorm, after the blocks, is missing": counted(rest=lambda v, c, w: v * w + c * w),
        "the table of positions is missing": counted(rest=lambda v, c, w: v * w + 2 * w),
        "the table of tokens is missing": counted(rest=lambda v, c, w: c * w + 2 * w),
        "this is one block: there are `layers` of them": counted(stacked=lambda layers, one: one),
        "the tables and the last LayerNorm are missing: these are the blocks alone": counted(rest=lambda v, c, w: 0),
        "there is a [CLS] vector too many: a tower that is read at [EOS] has none": (
            counted(rest=lambda v, c, w: v * w + c * w + 3 * w)
        ),
    },
    tolerance=1e-12,
)
def tower_size(vocab_size: int, context_length: int, width: int, layers: int) -> int:
    block = nn.TransformerEncoderLayer(width, nhead=1, dim_feedforward=4 * width)
    tables = nn.Embedding(vocab_size, width), nn.Embedding(context_length, width)
    parts = [*tables, nn.LayerNorm(width), *(layers * [block])]
    return sum(parameter.numel() for part in parts for parameter in part.parameters())
