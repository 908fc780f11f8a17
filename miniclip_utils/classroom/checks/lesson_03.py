"""Checks of lesson 03: words to numbers, attention, masks, the encoder block, where the feature is read, its length."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .before import diagnose, exercise, solved


@exercise
def encode(answer: Callable[[str, dict[str, int], int], list[int]]) -> str | None:
    number = {"[PAD]": 0, "[UNK]": 1, "[SOS]": 2, "[EOS]": 3, ".": 4, "a": 5, "circle": 6, "red": 7}
    texts = ["A red circle.", "a purple circle", "red"]
    got = []
    for text in texts:
        row = solved(answer(text, dict(number), 7))
        row = row.tolist() if hasattr(row, "tolist") else row
        if not isinstance(row, (list, tuple)):
            return f"it is of type {type(row).__name__}: return a list of numbers"
        if None in row:
            return "a word became None: what `get` returns for an unknown word is its second argument"
        if words := [entry for entry in row if isinstance(entry, str)]:
            return f"it holds the text {words[0]!r}: look up its number"
        got.append(torch.as_tensor(row))
    lengths = [row.numel() for row in got]
    if max(lengths) > 7:
        return f"the captions have {lengths} numbers: each needs 7, the `context_length` here"
    if len(set(lengths)) > 1:
        return f"the captions have {lengths} numbers: fill each up with [PAD] to `context_length`, 7 here"
    return diagnose(
        torch.stack(got),
        torch.tensor([[2, 5, 7, 6, 4, 3, 0], [2, 5, 1, 6, 3, 0, 0], [2, 7, 3, 0, 0, 0, 0]]),
        {
            "the unknown word became [PAD], which the tower does not see: it is [UNK]": torch.tensor(
                [[2, 5, 7, 6, 4, 3, 0], [2, 5, 0, 6, 3, 0, 0], [2, 7, 3, 0, 0, 0, 0]]
            ),
            "the unknown word is left out: it becomes [UNK], so that the tower knows of a gap": torch.tensor(
                [[2, 5, 7, 6, 4, 3, 0], [2, 5, 6, 3, 0, 0, 0], [2, 7, 3, 0, 0, 0, 0]]
            ),
            "[EOS] is missing after the last word": torch.tensor(
                [[2, 5, 7, 6, 4, 0, 0], [2, 5, 1, 6, 0, 0, 0], [2, 7, 0, 0, 0, 0, 0]]
            ),
            "[SOS] is missing before the first word": torch.tensor(
                [[5, 7, 6, 4, 3, 0, 0], [5, 1, 6, 3, 0, 0, 0], [7, 3, 0, 0, 0, 0, 0]]
            ),
            "[SOS] and [EOS] are missing around the words": torch.tensor(
                [[5, 7, 6, 4, 0, 0, 0], [5, 1, 6, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0, 0]]
            ),
            "[EOS] stands after the padding: it belongs right after the last word": torch.tensor(
                [[2, 5, 7, 6, 4, 0, 3], [2, 5, 1, 6, 0, 0, 3], [2, 7, 0, 0, 0, 0, 3]]
            ),
            "the padding stands in front: it belongs after [EOS]": torch.tensor(
                [[0, 2, 5, 7, 6, 4, 3], [0, 0, 2, 5, 1, 6, 3], [0, 0, 0, 0, 2, 7, 3]]
            ),
            "it is filled up with [UNK]: the end of a caption is [PAD], which the mask hides": torch.tensor(
                [[2, 5, 7, 6, 4, 3, 1], [2, 5, 1, 6, 3, 1, 1], [2, 7, 3, 1, 1, 1, 1]]
            ),
            "the full stop sticks to its word, which is then unknown: use `split_words`": torch.tensor(
                [[2, 5, 7, 1, 3, 0, 0], [2, 5, 1, 6, 3, 0, 0], [2, 7, 3, 0, 0, 0, 0]]
            ),
            "capitals and the full stop make words unknown: use `split_words`": torch.tensor(
                [[2, 1, 7, 1, 3, 0, 0], [2, 5, 1, 6, 3, 0, 0], [2, 7, 3, 0, 0, 0, 0]]
            ),
        },
    )


@exercise
def attention(answer: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]) -> str | None:
    q, k, v = torch.randn(3, 2, 3, 5, 8).unbind(0)  # each (N, num_heads, L, head width)
    scores = q @ k.transpose(-2, -1)
    scaled = scores / 8**0.5
    problem = diagnose(
        answer(q, k, v, None),
        F.scaled_dot_product_attention(q, k, v),
        {
            "the scaling is missing: divide the scores by the root of the head's width": scores.softmax(-1) @ v,
            "the scores are divided by the width: divide by its root": (scores / 8).softmax(-1) @ v,
            "the scores are divided by the root of the length: it is the root of the head's width": (
                (scores / 5**0.5).softmax(-1) @ v
            ),
            "the scaling comes after the softmax: scale the scores, or the weights do not add up to 1": (
                scores.softmax(-1) / 8**0.5 @ v
            ),
            "the softmax runs over the queries (dim=-2): the weights of each query, a row, must add up to 1": (
                scaled.softmax(-2) @ v
            ),
            "the softmax is missing: the weights of a row must be positive and add up to 1": scaled @ v,
            "queries and keys are swapped: the rows of the scores are queries": scaled.transpose(-2, -1).softmax(-1) @ v,
            "these are the weights: mix the values with them": scaled.softmax(-1),
            "the keys are mixed: the weights mix the values": scaled.softmax(-1) @ k,
        },
    )
    if problem:
        return problem
    mask = torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 1, 5, 5)
    # What stands where nobody looks is huge: an answer that only dampens it is found out.
    v = torch.cat([v[..., :4, :], 100 + v[..., 4:, :]], dim=-2)
    return diagnose(
        answer(q, k, v, mask),
        F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
        {
            "the mask is not used": scaled.softmax(-1) @ v,
            "the mask is turned round: True is where a query may look": scaled.masked_fill(mask, -torch.inf).softmax(-1) @ v,
            "the mask comes after the softmax: the weights that are left no longer add up to 1": (
                scaled.softmax(-1).masked_fill(~mask, 0) @ v
            ),
            "hidden scores are set to 0, and exp(0) = 1 is a weight like others: set them to −inf": (
                scaled.masked_fill(~mask, 0).softmax(-1) @ v
            ),
            "the mask is transposed: its rows are queries, its columns keys": (
                scaled.masked_fill(~mask.transpose(-2, -1), -torch.inf).softmax(-1) @ v
            ),
        },
    )


def as_mask(answer: Any) -> tuple[Tensor, str | None]:
    """A learner's mask, and what is wrong with its type."""
    mask = solved(answer)
    if isinstance(mask, Tensor) and mask.is_floating_point() and (mask == -torch.inf).any():
        return mask, "this is the additive kind of mask, 0 and −inf: `MultiHeadAttention` takes True and False"
    if isinstance(mask, Tensor) and mask.dtype != torch.bool:
        return mask, f"it is of type {mask.dtype}: a mask is torch.bool, as a comparison returns it"
    return mask, None


@exercise
def padding_mask(answer: Callable[[Tensor], Tensor]) -> str | None:
    tokens = torch.tensor([[2, 5, 1, 6, 3, 0, 0], [2, 5, 7, 6, 4, 3, 0], [2, 3, 0, 0, 0, 0, 0]])[torch.randperm(3)]
    got, problem = as_mask(answer(tokens))
    lengths = [row.index(3) + 1 for row in tokens.tolist()]
    is_word = torch.tensor([[i < length for i in range(7)] for length in lengths])

    def keys(visible: Tensor) -> Tensor:
        return visible[:, None, None, :]

    return problem or diagnose(
        got,
        keys(is_word),
        {
            "it is turned round, True at the padding as `nn.MultiheadAttention` wants it: here True is what may be seen": (
                keys(~is_word)
            ),
            "its shape is (N, L), which does not fit (N, num_heads, L, L): add axes for heads and queries": is_word,
            "it lacks an axis: (N, 1, L) is taken for (1, N, L), and texts are mixed up with heads": is_word[:, None, :],
            "it hides padding as queries (rows): hide it as keys (columns), the last axis": is_word[:, None, :, None],
            "it hides [UNK] too: an unknown word is not padding": keys(is_word & (tokens != 1)),
            "it hides the special tokens too: only [PAD] is padding": keys(tokens > 3),
            "it hides [EOS] too: only [PAD] is padding": keys(is_word & (tokens != 3)),
        },
    )


@exercise
def causal_mask(answer: Callable[[int], Tensor]) -> str | None:
    got, problem = as_mask(answer(5))
    other, _ = as_mask(answer(3))
    if problem is None and isinstance(other, Tensor) and other.shape != (3, 3):
        problem = f"for a length of 3 its shape is {tuple(other.shape)}, and should be (3, 3)"
    lower = torch.tensor([[key <= query for key in range(5)] for query in range(5)])
    return problem or diagnose(
        got,
        lower,
        {
            "it looks ahead: a query (row) may look at keys (columns) at or before its own place": lower.T,
            "it is turned round, True where a token may not look: here True is what may be seen": ~lower,
            "a token does not see itself: then the first one sees nothing, and its softmax is 0/0": lower
            & lower.T.logical_not(),
            "everything is visible: nothing is hidden from anyone": torch.ones(5, 5, dtype=torch.bool),
            "a token sees only itself: it may look at those before it, too": torch.eye(5, dtype=torch.bool),
        },
    )


@exercise
def encoder_block(answer: Callable[..., Tensor]) -> str | None:
    layer = nn.TransformerEncoderLayer(8, 2, 32, dropout=0, activation="gelu", batch_first=True, norm_first=True)
    for norm in (layer.norm1, layer.norm2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    x = torch.randn(3, 4, 8)

    def attend(x: Tensor, mask: Tensor | None = None) -> Tensor:
        return layer.self_attn(x, x, x, attn_mask=None if mask is None else ~mask, need_weights=False)[0]

    def mlp(x: Tensor) -> Tensor:
        return layer.linear2(F.gelu(layer.linear1(x)))

    norm_1, norm_2 = layer.norm1, layer.norm2
    with torch.no_grad():
        first = x + attend(norm_1(x), mask)
        blind = x + attend(norm_1(x))
        post = norm_1(x + attend(x, mask))
        bare = x + attend(x, mask)
        clean = norm_1(x) + attend(norm_1(x), mask)
        cut = attend(norm_1(x), mask)
        swapped = x + attend(norm_2(x), mask)
        return diagnose(
            answer(x.clone(), norm_1, attend, norm_2, mlp, mask),
            layer(x, src_mask=~mask),
            {
                "the mask is not passed on to the attention": blind + mlp(norm_2(blind)),
                "this is post-LayerNorm, as in the first Transformer: normalise what goes into attention and MLP, "
                "not the sum": norm_2(post + mlp(post)),
                "the LayerNorms are missing": bare + mlp(bare),
                "both shortcuts are missing": mlp(norm_2(cut)),
                "the shortcut around the attention is missing": cut + mlp(norm_2(cut)),
                "the shortcut around the MLP is missing": mlp(norm_2(first)),
                "the MLP's result is added to the block's input: what the attention found is lost": x + mlp(norm_2(first)),
                "the MLP reads the block's input: it reads what the attention left": first + mlp(norm_2(x)),
                "both shortcuts carry the normalised x: they carry x as it is": norm_2(clean) + mlp(norm_2(clean)),
                "the first shortcut carries the normalised x: it carries x as it is": clean + mlp(norm_2(clean)),
                "norm_1 is used twice: the MLP has a LayerNorm of its own": first + mlp(norm_1(first)),
                "the MLP reads what is not normalised: norm_2 is missing": first + mlp(first),
                "the attention reads what is not normalised: norm_1 is missing": bare + mlp(norm_2(bare)),
                "norm_1 and norm_2 are exchanged": swapped + mlp(norm_1(swapped)),
                "the MLP is missing": first,
            },
        )


@exercise
def read_at_eos(answer: Callable[[Tensor, Tensor], Tensor]) -> str | None:
    tokens = torch.tensor([[2, 5, 3, 0, 0, 0], [2, 9, 5, 6, 7, 3], [2, 5, 8, 6, 3, 0], [2, 3, 0, 0, 0, 0]])
    x = torch.randn(4, 6, 5)
    places = [2, 5, 4, 1]  # of [EOS], read off the rows above

    def at(columns: list[int]) -> Tensor:
        return torch.stack([x[row, column] for row, column in enumerate(columns)])

    return diagnose(
        answer(x, tokens),
        at(places),
        {
            "it reads the last place, which is padding in all but the longest caption": x[:, -1],
            "it reads at the largest number: `tokens.argmax` finds [EOS] in CLIP's vocabulary, where it is the last, "
            "but here [EOS] is 3": at([1, 1, 2, 1]),
            "it reads [SOS]: in a causal tower that one has seen nothing but itself": x[:, 0],
            "it reads one place too far, at the first padding (or around to [SOS])": at([3, 0, 5, 2]),
            "it reads one place too far, at the first padding": at([3, 5, 5, 2]),
            "it reads the last word, one place before [EOS]": at([1, 4, 3, 0]),
            "each caption is read at every caption's [EOS]: pair rows with places, `x[torch.arange(n), places]`": x[
                :, places
            ],
            "it keeps an axis of length 1: one vector for each caption is (N, width)": at(places)[:, None],
            "it is the mean over all places, padding included": x.mean(dim=1),
        },
    )


@exercise
def text_embedding(answer: Callable[[Tensor, nn.LayerNorm, Tensor], Tensor]) -> str | None:
    x, weight = 3 + 2 * torch.randn(5, 8), torch.randn(8, 6)
    norm = nn.LayerNorm(8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)

    def unit(rows: Tensor, dim: int = 1) -> Tensor:
        return rows / rows.square().sum(dim=dim, keepdim=True).sqrt()

    with torch.no_grad():
        feature = norm(x)
        projected = feature @ weight
        return diagnose(
            answer(x, norm, weight),
            unit(projected),
            {
                "the L2 norm is missing: after the projection the vectors have any length": projected,
                "the LayerNorm is missing: it comes before the projection": unit(x @ weight),
                "LayerNorm and L2 norm are both missing": x @ weight,
                "a LayerNorm stands where the L2 norm belongs: it gives length √D, not 1": F.layer_norm(projected, (6,)),
                "it is a LayerNorm of the projection: L2 belongs there, and the LayerNorm before it": (
                    F.layer_norm(x @ weight, (6,))
                ),
                "there is a LayerNorm after the projection too: it shifts the mean, and so the direction": (
                    unit(F.layer_norm(projected, (6,)))
                ),
                "a softmax stands where the L2 norm belongs: all coordinates turn positive, and no two vectors can point "
                "in opposite directions": projected.softmax(dim=1),
                "a softmax squeezes the vector before the L2 norm: all coordinates turn positive": unit(
                    projected.softmax(dim=1)
                ),
                "the L2 norm comes before the projection, which then changes the lengths again": unit(feature) @ weight,
                "the norm is taken over the batch (dim=0): each row needs length 1 of its own": unit(projected, dim=0),
                "it is divided by the squared length: divide by the length": projected
                / projected.square().sum(1, keepdim=True),
            },
        )
