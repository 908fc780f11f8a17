"""Typical wrong answers to the exercises of lesson 03, and words of what their checks must say."""

IMPORTS = "from miniclip_utils.tokenizer import EOS, PAD, SOS, UNK, split_words\n"


def encode(numbers: str = "[number.get(word, UNK) for word in split_words(text)]", row: str = "[SOS, *inner, EOS]") -> str:
    return (
        f"{IMPORTS}def my_encode(text, number, context_length):\n"
        f"    inner = {numbers}\n    row = {row}\n    return row + [PAD] * (context_length - len(row))\n"
    )


def attention(body: str) -> str:
    return (
        "def my_attention(q, k, v, mask=None):\n    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])\n"
        f"    plain = scores.softmax(-1) @ v\n    if mask is None:\n        return plain\n    {body}\n"
    )


def unmasked(body: str) -> str:
    return f"def my_attention(q, k, v, mask=None):\n    scores = q @ k.transpose(-2, -1)\n    return {body}\n"


def function(head: str, *lines: str) -> str:
    return f"def {head}:\n" + "".join(f"    {line}\n" for line in lines)


BLOCK = "my_encoder_block(x, norm_1, attention, norm_2, mlp, mask)"
EOS_READ = "my_read_at_eos(x, tokens)"
EMBEDDING = "my_text_embedding(x, norm, W_t)"
FIRST_EOS = "places = (tokens == 3).int().argmax(dim=1)"
ROWS = "torch.arange(len(x))"

MISTAKES = {
    "encode": [
        (encode("[number.get(word, PAD) for word in split_words(text)]"), "became [PAD]"),
        (encode("[number[word] for word in split_words(text) if word in number]"), "left out"),
        (encode(row="[SOS, *inner]"), "[EOS] is missing"),
        (encode(row="[*inner, EOS]"), "[SOS] is missing"),
        (encode(row="inner"), "[SOS] and [EOS] are missing"),
        (encode(row="[SOS, *inner] + [PAD] * (context_length - len(inner) - 2) + [EOS]"), "after the padding"),
        (encode(row="[PAD] * (context_length - len(inner) - 2) + [SOS, *inner, EOS]"), "stands in front"),
        (encode(row="[SOS, *inner, EOS] + [UNK] * (context_length - len(inner) - 2)"), "filled up with [UNK]"),
        (encode("[number.get(word, UNK) for word in text.lower().split()]"), "the full stop sticks"),
        (encode("[number.get(word, UNK) for word in text.split()]"), "capitals and the full stop"),
        (
            f"{IMPORTS}def my_encode(text, number, context_length):\n"
            "    return [SOS, *(number.get(word, UNK) for word in split_words(text)), EOS]\n",
            "fill each up",
        ),
        (encode("[number[word] for word in split_words(text)]"), "your code raised KeyError"),
        (encode("[number.get(word) for word in split_words(text)]"), "a word became None"),
        (encode("split_words(text)"), "look up its number"),
        (encode("[number.get(letter, UNK) for letter in text]"), "each needs 7"),
        (f"{IMPORTS}def my_encode(text, number, context_length):\n    return text\n", "of type str"),
    ],
    "attention": [
        (unmasked("scores.softmax(-1) @ v"), "scaling is missing"),
        (unmasked("(scores / q.shape[-1]).softmax(-1) @ v"), "divide by its root"),
        (unmasked("(scores / math.sqrt(q.shape[-2])).softmax(-1) @ v"), "root of the length"),
        (unmasked("scores.softmax(-1) / math.sqrt(q.shape[-1]) @ v"), "after the softmax: scale"),
        (unmasked("(scores / math.sqrt(q.shape[-1])).softmax(-2) @ v"), "over the queries"),
        (unmasked("scores / math.sqrt(q.shape[-1]) @ v"), "softmax is missing"),
        (unmasked("(scores.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v"), "queries and keys are swapped"),
        (unmasked("(scores / math.sqrt(q.shape[-1])).softmax(-1)"), "these are the weights"),
        (unmasked("(scores / math.sqrt(q.shape[-1])).softmax(-1) @ k"), "the keys are mixed"),
        (attention("return plain"), "mask is not used"),
        (attention("return scores.masked_fill(mask, -math.inf).softmax(-1) @ v"), "turned round"),
        (attention("return scores.softmax(-1).masked_fill(~mask, 0) @ v"), "the mask comes after the softmax"),
        (attention("return scores.masked_fill(~mask, 0).softmax(-1) @ v"), "set to 0"),
        (attention("return scores.masked_fill(~mask.mT, -math.inf).softmax(-1) @ v"), "mask is transposed"),
    ],
    "padding_mask": [
        (function("my_padding_mask(tokens)", "return (tokens == 0)[:, None, None, :]"), "turned round"),
        (function("my_padding_mask(tokens)", "return tokens != 0"), "its shape is (N, L)"),
        (function("my_padding_mask(tokens)", "return (tokens != 0)[:, None, :]"), "lacks an axis"),
        (function("my_padding_mask(tokens)", "return (tokens != 0)[:, None, :, None]"), "as queries (rows)"),
        (function("my_padding_mask(tokens)", "return (tokens > 1)[:, None, None, :]"), "hides [UNK] too"),
        (function("my_padding_mask(tokens)", "return (tokens > 3)[:, None, None, :]"), "hides the special tokens"),
        (
            function("my_padding_mask(tokens)", "return ((tokens != 0) & (tokens != 3))[:, None, None, :]"),
            "hides [EOS] too",
        ),
        (function("my_padding_mask(tokens)", "return (tokens != 0).float()[:, None, None, :]"), "torch.float32"),
        (
            function("my_padding_mask(tokens)", "return torch.where(tokens != 0, 0.0, -math.inf)[:, None, None, :]"),
            "additive kind",
        ),
    ],
    "causal_mask": [
        (function("my_causal_mask(length)", "return torch.ones(length, length, dtype=torch.bool).triu()"), "looks ahead"),
        (function("my_causal_mask(length)", "return torch.ones(length, length, dtype=torch.bool).triu(1)"), "turned round"),
        (
            function("my_causal_mask(length)", "return torch.ones(length, length, dtype=torch.bool).tril(-1)"),
            "not see itself",
        ),
        (function("my_causal_mask(length)", "return torch.ones(length, length, dtype=torch.bool)"), "everything is visible"),
        (function("my_causal_mask(length)", "return torch.eye(length, dtype=torch.bool)"), "sees only itself"),
        (function("my_causal_mask(length)", "return torch.ones(length, length).tril()"), "torch.float32"),
        (
            function("my_causal_mask(length)", "return torch.full((length, length), -math.inf).triu(1)"),
            "additive kind",
        ),
        (function("my_causal_mask(length)", "return torch.ones(5, 5, dtype=torch.bool).tril()"), "for a length of 3"),
    ],
    "encoder_block": [
        (function(BLOCK, "x = x + attention(norm_1(x))", "return x + mlp(norm_2(x))"), "mask is not passed on"),
        (function(BLOCK, "x = norm_1(x + attention(x, mask))", "return norm_2(x + mlp(x))"), "post-LayerNorm"),
        (function(BLOCK, "x = x + attention(x, mask)", "return x + mlp(x)"), "the LayerNorms are missing"),
        (function(BLOCK, "return mlp(norm_2(attention(norm_1(x), mask)))"), "both shortcuts are missing"),
        (function(BLOCK, "x = attention(norm_1(x), mask)", "return x + mlp(norm_2(x))"), "around the attention"),
        (function(BLOCK, "x = x + attention(norm_1(x), mask)", "return mlp(norm_2(x))"), "around the MLP"),
        (function(BLOCK, "y = x + attention(norm_1(x), mask)", "return x + mlp(norm_2(y))"), "is lost"),
        (function(BLOCK, "return x + attention(norm_1(x), mask) + mlp(norm_2(x))"), "what the attention left"),
        (
            function(BLOCK, "x = norm_1(x)", "x = x + attention(x, mask)", "x = norm_2(x)", "return x + mlp(x)"),
            "both shortcuts carry",
        ),
        (
            function(BLOCK, "x = norm_1(x)", "x = x + attention(x, mask)", "return x + mlp(norm_2(x))"),
            "the first shortcut carries",
        ),
        (function(BLOCK, "x = x + attention(norm_1(x), mask)", "return x + mlp(norm_1(x))"), "used twice"),
        (function(BLOCK, "x = x + attention(norm_1(x), mask)", "return x + mlp(x)"), "norm_2 is missing"),
        (function(BLOCK, "x = x + attention(x, mask)", "return x + mlp(norm_2(x))"), "norm_1 is missing"),
        (function(BLOCK, "x = x + attention(norm_2(x), mask)", "return x + mlp(norm_1(x))"), "are exchanged"),
        (function(BLOCK, "return x + attention(norm_1(x), mask)"), "the MLP is missing"),
    ],
    "read_at_eos": [
        (function(EOS_READ, "return x[:, -1]"), "the last place"),
        (function(EOS_READ, f"return x[{ROWS}, tokens.argmax(dim=1)]"), "the largest number"),
        (function(EOS_READ, "return x[:, 0]"), "it reads [SOS]"),
        (function(EOS_READ, f"return x[{ROWS}, (tokens == 0).int().argmax(dim=1)]"), "around to [SOS]"),
        (function(EOS_READ, f"return x[{ROWS}, (tokens != 0).sum(dim=1).clamp(max=5)]"), "at the first padding\n"),
        (function(EOS_READ, FIRST_EOS, f"return x[{ROWS}, places - 1]"), "the last word"),
        (function(EOS_READ, FIRST_EOS, "return x[:, places]"), "every caption's [EOS]"),
        (function(EOS_READ, FIRST_EOS, f"return x[{ROWS}[:, None], places[:, None]]"), "axis of length 1"),
        (function(EOS_READ, "return x.mean(dim=1)"), "the mean over all places"),
        (function(EOS_READ, f"return x[{ROWS}, (tokens != 0).sum(dim=1)]"), "your code raised IndexError"),
    ],
    "text_embedding": [
        (function(EMBEDDING, "return norm(x) @ W_t"), "L2 norm is missing"),
        (function(EMBEDDING, "return F.normalize(x @ W_t, dim=-1)"), "the LayerNorm is missing"),
        (function(EMBEDDING, "return x @ W_t"), "both missing"),
        (function(EMBEDDING, "y = norm(x) @ W_t", "return F.layer_norm(y, y.shape[-1:])"), "a LayerNorm stands"),
        (function(EMBEDDING, "y = x @ W_t", "return F.layer_norm(y, y.shape[-1:])"), "a LayerNorm of the projection"),
        (
            function(EMBEDDING, "y = norm(x) @ W_t", "return F.normalize(F.layer_norm(y, y.shape[-1:]), dim=-1)"),
            "after the projection too",
        ),
        (function(EMBEDDING, "return (norm(x) @ W_t).softmax(dim=-1)"), "a softmax stands"),
        (function(EMBEDDING, "return F.normalize((norm(x) @ W_t).softmax(dim=-1), dim=-1)"), "a softmax squeezes"),
        (function(EMBEDDING, "return F.normalize(norm(x), dim=-1) @ W_t"), "before the projection"),
        (function(EMBEDDING, "return F.normalize(norm(x) @ W_t, dim=0)"), "over the batch"),
        (function(EMBEDDING, "y = norm(x) @ W_t", "return y / y.square().sum(dim=-1, keepdim=True)"), "squared length"),
    ],
}
