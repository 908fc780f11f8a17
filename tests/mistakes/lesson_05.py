"""Wrong answers to the exercises of lesson 05, each with words of the message that it must get."""


def function(signature: str, *lines: str) -> str:
    return f"def {signature}:\n" + "".join(f"    {line}\n" for line in lines)


REFLECT = "x = (width - 1) - ((width - 1) - x.abs()).abs()"
MOVE = "x = torch.arange(width) + shifts[:, None]"
FLIP = "return torch.where(mirrored[:, None], width - 1 - x, x)"
BITS = "i, t = F.normalize(image_features, dim=1), F.normalize(text_features, dim=1)"
RISE = "if step < warmup_steps: return (step + 1) / warmup_steps"
SHARE = "share = (step - warmup_steps) / (total_steps - warmup_steps)"

MISTAKES = {
    "moved_columns": [
        (function("my_columns(width, shifts, mirrored)", *lines), words)
        for lines, words in [
            ((MOVE, FLIP), "nothing is reflected"),
            ((MOVE, "x = x.clamp(0, width - 1)", FLIP), "outermost column is repeated"),
            ((MOVE, "x = x % width", FLIP), "come in on the other"),
            (
                (MOVE, "x = torch.where(x < 0, -x - 1, x)", "x = torch.where(x >= width, 2 * width - 1 - x, x)", FLIP),
                "doubled",
            ),
            ((MOVE, "x = x.abs()", FLIP), "only the left end"),
            ((MOVE, "x = (width - 1) - ((width - 1) - x).abs()", FLIP), "only the right end"),
            ((MOVE, REFLECT, "return torch.where(mirrored[:, None], x, width - 1 - x)"), "wrong images are mirrored"),
            ((MOVE, REFLECT, "return torch.where(mirrored[:, None], width - x, x)"), "became width − c"),
            ((MOVE, REFLECT, "return x"), "is ignored"),
            ((MOVE, REFLECT, "return width - 1 - x"), "every image is mirrored"),
            (("x = torch.arange(width) - shifts[:, None]", REFLECT, FLIP), "the other way"),
            (
                (
                    "x = torch.arange(width).expand(len(shifts), -1)",
                    "x = torch.where(mirrored[:, None], width - 1 - x, x) + shifts[:, None]",
                    REFLECT,
                    "return x",
                ),
                "the mirrored image is moved",
            ),
            (("return torch.arange(width)",), "its shape is"),
        ]
    ],
    "careful_logits": [
        (function("my_logits(image_features, text_features, logit_scale)", *lines), words)
        for lines, words in [
            ((BITS, "return logit_scale * i @ t.T"), "the result is bfloat16"),
            ((BITS, "return logit_scale * i.float() @ t.float().T"), "widened afterwards"),
            ((BITS, "return logit_scale * (i @ t.T).float()"), "widened only at the end"),
            ((BITS, "return (logit_scale * i @ t.T).float()"), "even the scaled product"),
            (("return logit_scale * image_features.float() @ text_features.float().T",), "L2 norm is missing"),
            (
                (
                    "i, t = F.normalize(image_features.float(), dim=0), F.normalize(text_features.float(), dim=0)",
                    "return logit_scale * i @ t.T",
                ),
                "over the batch",
            ),
            (
                ("return logit_scale * F.normalize(image_features.float(), dim=1) @ text_features.float().T",),
                "only the images are normalised",
            ),
            (
                ("return logit_scale * image_features.float() @ F.normalize(text_features.float(), dim=1).T",),
                "only the texts are normalised",
            ),
            (
                ("image_features, text_features = image_features.float(), text_features.float()", BITS, "return i @ t.T"),
                "the scale is missing",
            ),
        ]
    ],
    "decayed": [
        (function("my_decayed(parameters)", f"return [name for name, p in parameters.items() if {condition}]"), words)
        for condition, words in [
            ("True", "all parameters"),
            ("p.ndim < 2", "wrong way round"),
            ("'bias' not in name", "logit scale is in it"),
            ("p.ndim > 0", "a bias is in it"),
            ("'weight' in name", "gain of a normalisation"),
            ("p.ndim >= 2 and 'text' not in name", "is missing"),
            ("p.ndim == 2", "it has 4 dimensions"),
        ]
    ]
    + [(function("my_decayed(parameters)", "return [p for p in parameters.values() if p.ndim >= 2]"), "not the name of")]
    + [(function("my_decayed(parameters)", "return True"), "of type bool: return a list")],
    "schedule": [
        (function("my_factor(step, total_steps, warmup_steps)", *lines), words)
        for lines, words in [
            (("return 0.5 * (1 + math.cos(math.pi * step / total_steps))",), "warm-up is missing"),
            (
                (
                    "if step < warmup_steps: return step / warmup_steps",
                    SHARE,
                    "return 0.5 * (1 + math.cos(math.pi * share))",
                ),
                "first batch teaches nothing",
            ),
            ((RISE, "return 0.5 * (1 + math.cos(math.pi * step / total_steps))"), "jumps down"),
            ((RISE, SHARE, "return math.cos(math.pi * share)"), "below zero"),
            ((RISE, SHARE, "return 1 - share"), "straight line: half"),
            ((RISE, SHARE, "return math.cos(math.pi / 2 * share)"), "quarter of a wave"),
            ((RISE, "return 1.0"), "stays at the peak"),
            ((RISE, SHARE, "return 1 + math.cos(math.pi * share)"), "begins at 2"),
            (
                (RISE, "return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / total_steps))"),
                "spread over all steps",
            ),
            (
                (
                    RISE,
                    "share = (step - warmup_steps) / (total_steps - warmup_steps - 1)",
                    "return 0.5 * (1 + math.cos(math.pi * share))",
                ),
                "last step has a rate of 0",
            ),
            (
                (RISE.replace("<", "<="), SHARE, "return 0.5 * (1 + math.cos(math.pi * share))"),
                "one step too many",
            ),
            (
                (
                    "if step < warmup_steps: return (step + 1) / (warmup_steps + 1)",
                    SHARE,
                    "return 0.5 * (1 + math.cos(math.pi * share))",
                ),
                "below the peak",
            ),
            (("return [0.5]",), "of type list: return a number"),
            (("return 0.5",), "one number is"),
        ]
    ],
    "snapshot": [
        (function("my_snapshot(model)", *lines), words)
        for lines, words in [
            (("return model.state_dict()",), "moves on with the model"),
            (("return {n: p.detach().clone() for n, p in model.named_parameters()}",), "no parameters"),
            (("import copy", "return copy.deepcopy(model)"), "of type Sequential"),
            (("return {n: t.numpy().copy() for n, t in model.state_dict().items()}",), "of type ndarray"),
            (("return {n: t.bfloat16().clone() for n, t in model.state_dict().items()}",), "which rounds it"),
            (("return {n: torch.zeros_like(t) for n, t in model.state_dict().items()}",), "other values"),
        ]
    ],
    "standard_error": [
        (function("my_standard_error(accuracy, n)", f"return {formula}"), words)
        for formula, words in [
            ("accuracy * (1 - accuracy) / n", "this is the variance"),
            ("math.sqrt(accuracy * (1 - accuracy))", "a single answer"),
            ("math.sqrt(accuracy * (1 - accuracy)) / n", "divided by n"),
            ("accuracy * (1 - accuracy) / math.sqrt(n)", "root is taken of n alone"),
            ("math.sqrt(accuracy / n)", "1 − p is missing"),
            ("1.96 * math.sqrt(accuracy * (1 - accuracy) / n)", "95% interval"),
            ("100 * math.sqrt(accuracy * (1 - accuracy) / n)", "in percent"),
            ("0.01", "one number is"),
        ]
    ],
}
