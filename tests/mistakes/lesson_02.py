"""Typical wrong answers to the exercises of lesson 02, and words of what their checks must say."""


def function(head: str, *lines: str) -> str:
    return "\n    ".join([f"def {head}:", *lines]) + "\n"


def size(expression: str) -> str:
    return function("my_output_size(size, kernel_size, stride=1, padding=0)", f"return {expression}")


def norm(*lines: str) -> str:
    return function("my_batch_norm(x, running_mean, running_var, training)", *lines)


def block(*lines: str) -> str:
    return function("my_residual_block(x, conv_1, norm_1, conv_2, norm_2, shortcut, pool)", *lines)


def field(*lines: str, start: int = 1) -> str:
    walk = [f"size, step = {start}, 1", "for k, stride in layers:", *(f"    {line}" for line in lines), "return size"]
    return function("my_receptive_field(layers)", *walk)


def cut(permutation: str, shape: str = "n, -1, c * p * p") -> str:
    return function(
        "my_patchify(images, patch_size)",
        "n, c, h, w = images.shape",
        "p = patch_size",
        f"return images.view(n, c, h // p, p, w // p, p){permutation}.reshape({shape})",
    )


def tokens(*lines: str) -> str:
    token = "token = class_token.expand(len(patches), 1, -1)"
    return function("my_add_class_token(patches, class_token, positional_embedding)", token, *lines)


def pool(weights: str, result: str = "(weights @ places)[:, 0]", query: str = "places.mean(dim=1, keepdim=True)") -> str:
    return function(
        "my_attention_pool(x)",
        "places = x.flatten(2).transpose(1, 2)",
        f"query = {query}",
        "scores = query @ places.transpose(1, 2)",
        f"weights = {weights}",
        f"return {result}",
    )


BY_RUNNING = "return (x - running_mean.view(-1, 1, 1)) / (running_var.view(-1, 1, 1) + 1e-5).sqrt()"
BY_BATCH = "return (x - x.mean(dims, keepdim=True)) / (x.var(dims, keepdim=True, correction=0) + 1e-5).sqrt()"
RIGHT_IN_TRAINING = ("if training:", "    dims = (0, 2, 3)", f"    {BY_BATCH}")

HIDDEN = "hidden = norm_1(pool(conv_1(x))).relu()"
WAY = "shortcut(pool(x))"

MISTAKES = {
    "output_size": [
        (size("(size + 2 * padding - kernel_size) // stride"), "one place is missing"),
        (size("(size + padding - kernel_size) // stride + 1"), "counted once"),
        (size("(size - kernel_size) // stride + 1"), "padding is left out"),
        (size("size + 2 * padding - kernel_size + 1"), "stride is left out"),
        (size("(size + 2 * padding - kernel_size) / stride + 1"), "a fraction"),
        (size("math.ceil((size + 2 * padding - kernel_size) / stride) + 1"), "rounds up"),
        (size("(size + 2 * padding - kernel_size + 1) // stride"), "not before"),
        (size("(size + 2 * padding) // stride"), "the kernel is left out"),
        (size("round((size + 2 * padding - kernel_size) / stride) + 1"), "rounds to the nearest"),
        (size("str((size + 2 * padding - kernel_size) // stride + 1)"), "of type str"),
        (size("31"), "one number is"),
        (size("size.shape"), "your code raised AttributeError"),
    ],
    "batch_norm": [
        (norm(BY_RUNNING), "these are the running statistics"),
        (norm("dims = (0, 2, 3)", BY_BATCH), "do not depend on an image's neighbours"),
        (norm("dims = (2, 3)", BY_BATCH), "each image is normalised by itself"),
        (norm("dims = 0", BY_BATCH), "each place has its own mean"),
        (norm("dims = (1, 2, 3)", BY_BATCH), "as LayerNorm does"),
        (norm("dims = (0, 1, 2, 3)", BY_BATCH), "all channels share one mean"),
        (norm("dims = (0, 2, 3)", BY_BATCH.replace(", correction=0", "")), "divides by n − 1"),
        (norm("dims = (0, 2, 3)", BY_BATCH.replace(".sqrt()", "")), "with training=True, you divide by the variance"),
        (norm(*RIGHT_IN_TRAINING, BY_RUNNING.replace(".sqrt()", "")), "with training=False, you divide by the variance"),
        (norm("dims = (0, 2, 3)", "return x - x.mean(dims, keepdim=True)"), "nothing is divided"),
        (norm("dims = (0, 2, 3)", "return x / x.std(dims, keepdim=True, correction=0)"), "the mean is not subtracted"),
        (norm("return x"), "nothing has changed"),
        (norm(*(line.replace(" + 1e-5", "") for line in RIGHT_IN_TRAINING), BY_RUNNING), "eps is missing"),
        (
            norm(*(line.replace("var", "std").replace(".sqrt()", "") for line in RIGHT_IN_TRAINING), BY_RUNNING),
            "under the root",
        ),
    ],
    "residual_block": [
        (block(HIDDEN, "return norm_2(conv_2(hidden)).relu()"), "the shortcut is not added"),
        (block(HIDDEN, "return norm_2(conv_2(hidden))"), "neither the shortcut nor the last ReLU"),
        (block(HIDDEN, f"return norm_2(conv_2(hidden)).relu() + {WAY}"), "before the sum"),
        (block(HIDDEN, f"return norm_2(conv_2(hidden)).relu() + {WAY}.relu()"), "each summand has its own ReLU"),
        (block(HIDDEN, f"return norm_2(conv_2(hidden)) + {WAY}"), "the last ReLU is missing"),
        (block(f"return (norm_2(conv_2(norm_1(pool(conv_1(x))))) + {WAY}).relu()"), "the ReLU between the convolutions"),
        (block(f"return (norm_2(conv_2(pool(conv_1(x)).relu())) + {WAY}).relu()"), "norm_1 is missing"),
        (block(HIDDEN, f"return (conv_2(hidden) + {WAY}).relu()"), "norm_2 is missing"),
        (block(f"return (norm_1(conv_2(norm_2(pool(conv_1(x))).relu())) + {WAY}).relu()"), "are exchanged"),
        (block(f"return (norm_2(conv_2(norm_1(conv_1(pool(x))).relu())) + {WAY}).relu()"), "you pool before conv_1"),
        (block(f"return (norm_2(conv_2(pool(norm_1(conv_1(x)).relu()))) + {WAY}).relu()"), "you pool after norm_1"),
        (block(HIDDEN, "return (norm_2(conv_2(hidden)) + pool(shortcut(x))).relu()"), "pools after its 1×1"),
        (block(HIDDEN, "return (norm_2(conv_2(hidden)) + shortcut(x)).relu()"), "your code raised RuntimeError"),
    ],
    "receptive_field": [
        (field("size += k - 1"), "the strides are left out"),
        (field("step *= stride", "size += (k - 1) * step"), "counted too early"),
        (field("size += (k - 1) * stride"), "only a layer's own stride"),
        (field("size += (k - 1) * step", "step += stride - 1"), "the strides are added up"),
        (field("size += k * step", "step *= stride", start=0), "the whole kernel is added"),
        (field("size += k * step", "step *= stride"), "reaches over k − 1 steps"),
        (field("size += (k - 1) * step", "step *= stride", start=0), "you start from 0"),
        (field("size *= k"), "the kernels are multiplied"),
        (field("size = k"), "one number is"),
    ],
    "patchify": [
        (cut(""), "a reshape alone"),
        (
            function("my_patchify(images, patch_size)", "return F.unfold(images, patch_size, stride=patch_size)"),
            "each patch is a column",
        ),
        (cut(".permute(0, 2, 4, 3, 5, 1)"), "the channels come last"),
        (cut(".permute(0, 4, 2, 1, 3, 5)"), "run down the columns"),
        (cut(".permute(0, 2, 4, 1, 5, 3)"), "rows and columns are swapped"),
        (cut(".permute(0, 1, 2, 4, 3, 5)", "n, -1, p * p"), "each channel is cut by itself"),
        (cut(".permute(0, 2, 4, 1, 3, 5)", "-1, c * p * p"), "the images run together"),
    ],
    "add_class_token": [
        (tokens("return torch.cat([patches, token], dim=1) + positional_embedding"), "stands at the end"),
        (tokens("return torch.cat([token, patches], dim=1)"), "the positional embedding is missing"),
        (tokens("return patches + positional_embedding[1:]"), "the class token is missing"),
        (tokens("return torch.cat([token, patches + positional_embedding[1:]], dim=1)"), "has no place added"),
        (
            tokens("return torch.cat([token, patches], dim=1) + positional_embedding.roll(1, 0)"),
            "the places are shifted",
        ),
        (tokens("return torch.cat([token, patches], dim=1) * positional_embedding"), "multiplied"),
        (tokens("return patches + class_token"), "added to each patch"),
        (tokens("return torch.cat([class_token, patches], dim=1)"), "your code raised"),
    ],
    "attention_pool": [
        (function("my_attention_pool(x)", "return x.mean(dim=(2, 3))"), "the plain mean"),
        (pool("scores.softmax(dim=-1)"), "not divided by √C"),
        (pool("(scores / x.shape[1]).softmax(dim=-1)"), "divided by C"),
        (pool("(scores / x.shape[1] ** 0.5).softmax(dim=0)"), "wrong dimension"),
        (pool("scores / x.shape[1] ** 0.5"), "the softmax is missing"),
        (pool("(scores / x.shape[1] ** 0.5).softmax(dim=1)"), "the sum of all places"),
        (
            function(
                "my_attention_pool(x)",
                "places = x.flatten(2).transpose(1, 2)",
                "query = places.mean(dim=1, keepdim=True)",
                "places = torch.cat([query, places], dim=1)",
                "scores = query @ places.transpose(1, 2) / x.shape[1] ** 0.5",
                "return (scores.softmax(dim=-1) @ places)[:, 0]",
            ),
            "the places alone",
        ),
        (pool("(scores / x.shape[1] ** 0.5).softmax(dim=-1)", query="places[:, :1]"), "the first place"),
        (
            pool("(scores / x.shape[1] ** 0.5).softmax(dim=-1)", query="places.amax(dim=1, keepdim=True)"),
            "the largest value",
        ),
        (
            pool("(scores / x.shape[1] ** 0.5).softmax(dim=-1)", "(weights.transpose(1, 2) * places).mean(dim=1)"),
            "averaged",
        ),
        (pool("(scores / x.shape[1] ** 0.5).softmax(dim=-1)", "weights[:, 0]"), "these are the weights"),
        (pool("(scores / x.shape[1] ** 0.5).softmax(dim=-1)", "weights @ places"), "one dimension too many"),
    ],
}
