"""Typical wrong answers to the exercises of lesson 08, and words of what their checks must say."""


def gelu(body: str) -> str:
    return f"def my_quick_gelu(x):\n    return {body}\n"


def renamed(*pairs: tuple[str, str]) -> str:
    """The solution's replacements, some of them exchanged."""
    right = {
        "image_encoder.blocks": "visual.transformer.resblocks",
        "text_encoder.blocks": "transformer.resblocks",
        "norm_": "ln_",
        "attention.qkv.": "attn.in_proj_",
        "attention.out": "attn.out_proj",
        "mlp.0": "mlp.c_fc",
        "mlp.2": "mlp.c_proj",
    }
    table = {**right, **dict(pairs)}
    return (
        f"def my_block_name(name):\n    for ours, theirs in {table!r}.items():\n"
        "        name = name.replace(ours, theirs)\n    return name\n"
    )


def places(body: str) -> str:
    return (
        "def my_resized_places(places, new):\n"
        "    old, width = math.isqrt(len(places) - 1), places.shape[1]\n"
        "    grid = places[1:].view(1, old, old, width).permute(0, 3, 1, 2)\n"
        "    def resize(x, **options):\n"
        "        x = F.interpolate(x, (new, new), **{'mode': 'bilinear', **options})\n"
        "        return x.permute(0, 2, 3, 1).reshape(-1, width)\n"
        f"    return {body}\n"
    )


def flops(embedding="patches * 3 * patch_size**2 * width", tokens="patches + 1", block=None, whole=None) -> str:
    block = block or "12 * tokens * width**2 + 2 * tokens**2 * width"
    return (
        "def my_vit_flops(image_size, patch_size, width, layers):\n"
        "    patches = (image_size // patch_size) ** 2\n"
        f"    tokens = {tokens}\n    embedding = {embedding}\n    block = {block}\n"
        f"    return {whole or '2 * (embedding + layers * block)'}\n"
    )


def gap(body: str) -> str:
    return f"def my_needed_gap(n, scale, chance):\n    return {body}\n"


MISTAKES = {
    "quick_gelu": [
        (gelu("F.gelu(x)"), "this is GELU itself"),
        (gelu("F.gelu(x, approximate='tanh')"), "tanh formula"),
        (gelu("x * x.sigmoid()"), "is SiLU"),
        (gelu("(1.702 * x).sigmoid()"), "only the gate"),
        (gelu("1.702 * x * x.sigmoid()"), "stands outside"),
        (gelu("F.silu(1.702 * x)"), "counts twice"),
        (gelu("x.relu()"), "this is ReLU"),
        (gelu("x * (-1.702 * x).sigmoid()"), "is turned"),
        (gelu("x * (1.7 * x).sigmoid()"), "one number is"),
    ],
    "block_name": [
        (renamed(("attention.qkv.", "attn.in_proj.")), "with an underscore"),
        (renamed(("mlp.0", "mlp.c_proj"), ("mlp.2", "mlp.c_fc")), "c_fc and c_proj are swapped"),
        (renamed(("norm_", "norm_"), ("norm_1", "ln_2"), ("norm_2", "ln_1")), "LayerNorms are swapped"),
        (renamed(("text_encoder.blocks", "text.transformer.resblocks")), "no prefix of its own"),
        (renamed(("text_encoder.blocks", "visual.transformer.resblocks")), "both towers"),
        (
            renamed(("image_encoder.blocks", "visual.transformer"), ("text_encoder.blocks", "transformer")),
            "'resblocks' is missing",
        ),
        (renamed(("image_encoder.blocks", "transformer.resblocks")), "start with 'visual.'"),
        (renamed(("attention.out", "attn.out")), "out_proj"),
        (renamed(("norm_", "norm")), "and should be"),
        (renamed(("mlp.0", "mlp.0"), (".0.", ".c_fc."), ("mlp.2", "mlp.c_proj")), "resblocks.c_fc.ln_1"),
        ("def my_block_name(name):\n    return 3\n", "of type int: return a name"),
    ],
    "resized_places": [
        (places("resize(grid)"), "row is missing"),
        (places("torch.cat([resize(grid), places[:1]])"), "stands at the end"),
        (
            places("torch.cat([places[:1], F.interpolate(places[1:].T[None], new * new, mode='linear')[0].T])"),
            "like a line",
        ),
        (places("F.interpolate(places.T[None], 1 + new * new, mode='linear')[0].T"), "took part"),
        (places("torch.cat([places[:1], resize(places[1:].reshape(1, width, old, old))])"), "mixed up"),
        (
            places("torch.cat([places[:1], F.interpolate(grid, (new, new), mode='bilinear').reshape(-1, width)])"),
            "channel by channel",
        ),
        (places("torch.cat([places[:1], resize(grid.transpose(2, 3))])"), "swapped"),
        (places("torch.cat([places[:1], resize(grid, align_corners=True)])"), "align_corners"),
        (places("torch.cat([places[:1], resize(grid, mode='nearest')])"), "copies its nearest"),
        (places("torch.cat([places[:1], resize(grid, mode='bicubic')])"), "one number is"),
        (places("places"), "its shape is (10, 4)"),
    ],
    "vit_flops": [
        (flops(whole="embedding + layers * block"), "double them"),
        (flops(tokens="patches"), "class token is missing"),
        (flops(block="12 * tokens * width**2"), "tokens with tokens are missing"),
        (flops(block="12 * tokens * width**2 + tokens**2 * width"), "one of attention's two"),
        (flops(embedding="0"), "patch embedding is missing"),
        (flops(block="4 * tokens * width**2 + 2 * tokens**2 * width"), "MLP is missing"),
        (flops(block="8 * tokens * width**2 + 2 * tokens**2 * width"), "four matrices are missing"),
        (flops(whole="2 * (embedding + block)"), "for one block"),
        (flops(embedding="tokens * 3 * patch_size**2 * width"), "is no patch"),
        (flops(embedding="patches * patch_size**2 * width"), "one number is"),
    ],
    "needed_gap": [
        (gap("math.log(n * chance / (1 - chance)) / scale"), "not n"),
        (gap("math.log((n - 1) * chance / (1 - chance))"), "divide by the scale"),
        (gap("scale * math.log((n - 1) * chance / (1 - chance))"), "the scale multiplies"),
        (gap("math.log(chance / (1 - chance)) / scale"), "wrong texts are missing"),
        (gap("math.log(n - 1) / scale"), "one half"),
        (gap("math.log((n - 1) * chance) / scale"), "takes the odds"),
        (gap("math.log(chance / (1 - chance) / (n - 1)) / scale"), "on the wrong side"),
        (gap("-math.log((n - 1) * chance / (1 - chance)) / scale"), "sign is turned"),
        (gap("chance"), "one number is"),
    ],
}
