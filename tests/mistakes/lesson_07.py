"""Wrong answers to the exercises of lesson 07, each with words of the message that it must get."""


def function(signature: str, *lines: str) -> str:
    return f"def {signature}:\n" + "".join(f"    {line}\n" for line in lines)


SHARD = "my_shard_loss(image, text, all_image, all_text, scale, rank)"
START = "targets = rank * len(image) + torch.arange(len(image))"
IMAGES, TEXTS = (
    "rows = F.cross_entropy(scale * image @ all_text.T, targets)",
    "F.cross_entropy(scale * text @ all_image.T, targets)",
)

MISTAKES = {
    "matrix_gigabytes": [
        (function("my_matrix_gigabytes(n, bytes_per_number)", f"return {formula}"), words)
        for formula, words in [
            ("n * bytes_per_number / 1e9", "N · N numbers"),
            ("n * n / 1e9", "numbers, not bytes"),
            ("n * n * bytes_per_number * 8 / 1e9", "these are bits"),
            ("n * n * bytes_per_number / 2**30", "gibibytes"),
            ("n * n * bytes_per_number / 1e6", "megabytes"),
            ("n * n * bytes_per_number", "these are bytes"),
            ("n * n * 4 / 1e9", "is ignored"),
            ("f'{n * n * bytes_per_number / 1e9} GB'", "of type str: return a number"),
            ("1.0", "one number is"),
        ]
    ],
    "joined_logsumexp": [
        (function("my_joined_logsumexp(parts)", f"return {formula}"), words)
        for formula, words in [
            ("parts.sum(dim=0)", "do not add up"),
            ("parts.mean(dim=0)", "this is their mean"),
            ("parts.amax(dim=0)", "largest part"),
            ("parts.exp().sum(dim=0)", "logarithm is missing"),
            ("parts.exp().mean(dim=0).log()", "of the *mean*"),
            ("parts.logsumexp(dim=1)", "dim=1"),
            ("parts.exp().sum(dim=0).log()", "leaves float32"),
            ("torch.zeros(5)", "one number is"),
        ]
    ],
    "second_pass": [
        (function("my_second_pass(encode, chunks, gradients)", *lines), words)
        for lines, words in [
            (("for chunk in chunks: encode(chunk).sum().backward()",), "are not used"),
            (("encode(chunks[0]).backward(gradients[0])",), "only the first"),
            (
                (
                    "for chunk, gradient in zip(chunks, gradients):",
                    "    encode.zero_grad()",
                    "    encode(chunk).backward(gradient)",
                ),
                "only the last",
            ),
            (("for chunk in chunks: encode(chunk).backward(gradients[0][: len(chunk)])",), "of the first one"),
            (("for chunk, gradient in zip(chunks, gradients): encode(chunk).backward(-gradient)",), "sign is turned"),
            (
                ("for chunk, gradient in zip(chunks, gradients): encode(chunk).backward(gradient / len(chunks))",),
                "mean over the chunks",
            ),
            (
                ("for chunk, gradient in zip(chunks, gradients): (encode(chunk) * gradient).mean().backward()",),
                "averaged over its numbers",
            ),
            (
                (
                    "with torch.no_grad():",
                    "    for chunk, gradient in zip(chunks, gradients): encode(chunk).backward(gradient)",
                ),
                "your code raised RuntimeError",
            ),
            (("return [encode(chunk) for chunk in chunks]",), "no gradient has reached"),
            (("for chunk in chunks: encode(chunk).square().sum().backward()",), "one number is"),
        ]
    ],
    "own_gradient": [
        (
            function("my_own_gradient(gradients, rank)", "size = len(gradients[0]) // len(gradients)", f"return {formula}"),
            words,
        )
        for formula, words in [
            ("gradients[rank][rank * size : (rank + 1) * size]", "others used your features"),
            (
                "sum(g for i, g in enumerate(gradients) if i != rank)[rank * size : (rank + 1) * size]",
                "your own loss is missing",
            ),
            ("torch.stack(gradients).mean(0)[rank * size : (rank + 1) * size]", "it is averaged"),
            ("sum(gradients)", "are not cut"),
            ("sum(gradients)[:size]", "rows of the first process"),
            ("sum(gradients)[(rank + 1) * size : (rank + 2) * size]", "another process's share"),
            ("sum(gradients)[rank :: len(gradients)]", "every third row"),
            ("torch.zeros(size, 4)", "one number is"),
        ]
    ],
    "shard_loss": [
        (function(SHARD, *lines), words)
        for lines, words in [
            (("targets = torch.arange(len(image))", IMAGES, f"return (rows + {TEXTS}) / 2"), "start at 0"),
            (("targets = rank + torch.arange(len(image))", IMAGES, f"return (rows + {TEXTS}) / 2"), "start at `rank`"),
            (
                (
                    "all_image, all_text, targets = image, text, torch.arange(len(image))",
                    IMAGES,
                    f"return (rows + {TEXTS}) / 2",
                ),
                "only your own columns",
            ),
            ((START, IMAGES, "return rows"), "only image → text"),
            ((START, f"return {TEXTS}"), "only text → image"),
            ((START, IMAGES, f"return rows + {TEXTS}"), "added, and not averaged"),
            (("scale = 1", START, IMAGES, f"return (rows + {TEXTS}) / 2"), "scale is missing"),
            (
                (
                    "image, text, targets = all_image, all_text, torch.arange(len(all_image))",
                    IMAGES,
                    f"return (rows + {TEXTS}) / 2",
                ),
                "loss of the whole batch",
            ),
            (
                ("all_image, all_text = all_text, all_image", START, IMAGES, f"return (rows + {TEXTS}) / 2"),
                "compared with images",
            ),
            (("return torch.tensor(0.5)",), "one number is"),
        ]
    ],
    "gpu_days": [
        (function("my_gpu_days(forward_flops, pairs, epochs, flops_per_second)", f"return {formula}"), words)
        for formula, words in [
            ("forward_flops * pairs * epochs / flops_per_second / 86_400", "forward pass alone"),
            ("2 * forward_flops * pairs * epochs / flops_per_second / 86_400", "counts once here"),
            ("3 * forward_flops * pairs * epochs / flops_per_second", "these are seconds"),
            ("3 * forward_flops * pairs * epochs / flops_per_second / 3_600", "these are hours"),
            ("forward_flops * pairs * epochs / flops_per_second / 3_600", "forward pass in hours"),
            ("forward_flops * pairs * epochs / flops_per_second", "forward pass in seconds"),
            ("3 * forward_flops * pairs / flops_per_second / 86_400", "one epoch"),
            ("12.0", "one number is"),
        ]
    ],
}
