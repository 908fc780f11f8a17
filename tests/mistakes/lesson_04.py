"""Typical wrong answers to the exercises of lesson 04, and words of what their checks must say."""


def cosine(body: str) -> str:
    return f"def my_cosine_matrix(I_f, T_f, W_i, W_t):\n    I_e, T_e = I_f @ W_i, T_f @ W_t\n    {body}\n"


def function(head: str, body: str) -> str:
    return f"def {head}:\n    {body}\n"


ROWS, COLUMNS = "F.cross_entropy(logits, torch.arange(len(logits)))", "F.cross_entropy(logits.T, torch.arange(len(logits)))"
GAP = "n / math.sqrt(n - 1)"

MISTAKES = {
    "cosine_matrix": [
        (cosine("return I_e @ T_e.T"), "L2 norm is missing"),
        (cosine("return F.normalize(I_e, dim=0) @ F.normalize(T_e, dim=0).T"), "over the batch (dim=0)"),
        (
            "def my_cosine_matrix(I_f, T_f, W_i, W_t):\n"
            "    return (F.normalize(I_f, dim=1) @ W_i) @ (F.normalize(T_f, dim=1) @ W_t).T\n",
            "before the projection",
        ),
        (cosine("return F.normalize(I_e, dim=1) @ T_e.T"), "only the images"),
        (cosine("return I_e @ F.normalize(T_e, dim=1).T"), "only the texts"),
        (cosine("return F.normalize(T_e, dim=1) @ F.normalize(I_e, dim=1).T"), "transposed"),
        (cosine("return F.cosine_similarity(I_e, T_e)"), "only the N true pairs"),
        (cosine("return F.layer_norm(I_e, (4,)) @ F.layer_norm(T_e, (4,)).T"), "a LayerNorm stands"),
        (cosine("return F.normalize(I_e @ T_e.T, dim=1)"), "the matrix is normalised"),
        (cosine("return F.normalize(I_e, dim=1)"), "its shape is (5, 4)"),
        (cosine("return I_f @ T_f.T"), "your code raised"),
        (cosine("return torch.eye(len(I_f))"), "one number is"),
    ],
    "symmetric_loss": [
        (function("my_symmetric_loss(logits)", f"return {ROWS}"), "only image → text"),
        (function("my_symmetric_loss(logits)", f"return {COLUMNS}"), "only text → image"),
        (function("my_symmetric_loss(logits)", f"return {ROWS} + {COLUMNS}"), "not averaged"),
        (function("my_symmetric_loss(logits)", f"return -({ROWS} + {COLUMNS}) / 2"), "sign is turned"),
        (function("my_symmetric_loss(logits)", f"return len(logits) * ({ROWS} + {COLUMNS}) / 2"), "added up"),
        (
            "def my_symmetric_loss(logits):\n"
            "    targets = torch.arange(len(logits))\n"
            "    rows, columns = logits.softmax(1), logits.T.softmax(1)\n"
            "    return (F.cross_entropy(rows, targets) + F.cross_entropy(columns, targets)) / 2\n",
            "applied twice",
        ),
        (
            "def my_symmetric_loss(logits):\n"
            "    targets = torch.zeros(len(logits), dtype=torch.int64)\n"
            "    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2\n",
            "every pair has target 0",
        ),
        (function("my_symmetric_loss(logits)", "return -logits.diag().mean()"), "softmax is missing"),
        (function("my_symmetric_loss(logits)", f"return (({ROWS} + {COLUMNS}) / 2).item()"), "no gradient can flow"),
        (function("my_symmetric_loss(logits)", "return torch.tensor(1.79)"), "one number is"),
        (function("my_symmetric_loss(logits)", "return 'loss'"), "of type str"),
    ],
    "logit_gradient": [
        (function("my_logit_gradient(logits)", f"n = len(logits); return ({body})"), words)
        for body, words in [
            ("(logits.softmax(1) - torch.eye(n)) / n", "image → text alone"),
            ("(logits.softmax(0) - torch.eye(n)) / n", "text → image alone"),
            ("(logits.softmax(1) - torch.eye(n)) / (2 * n)", "this is image → text"),
            ("(logits.softmax(0) - torch.eye(n)) / (2 * n)", "this is text → image"),
            ("(logits.softmax(1) + logits.softmax(0) - 2 * torch.eye(n)) / 2", "1/N is missing"),
            ("(logits.softmax(1) + logits.softmax(0) - 2 * torch.eye(n)) / n", "1/2 is missing"),
            ("logits.softmax(1) + logits.softmax(0) - 2 * torch.eye(n)", "1/(2N) is missing"),
            ("(2 * torch.eye(n) - logits.softmax(1) - logits.softmax(0)) / (2 * n)", "sign is turned"),
            ("(logits.softmax(1) + logits.softmax(0)) / (2 * n)", "target is missing"),
            ("(logits.softmax(1) + logits.softmax(0) - torch.eye(n)) / (2 * n)", "subtracted once"),
            ("(logits.softmax(1) + logits.T.softmax(1) - 2 * torch.eye(n)) / (2 * n)", "is transposed"),
            ("torch.zeros(n, n)", "one number is"),
            (
                "torch.autograd.grad(F.cross_entropy(x := logits.clone().requires_grad_(), torch.arange(n)), x)[0]",
                "autograd",
            ),
        ]
    ],
    "scaled_logits": [
        (function("my_scaled_logits(cosines, t)", f"return {body}"), words)
        for body, words in [
            ("t * cosines", "take exp(t)"),
            ("t.exp() * cosines", "cap on exp(t) is missing"),
            ("(t.exp() * cosines).clamp(max=100)", "on the logits"),
            ("(t.exp() * cosines).clamp(-100, 100)", "at both ends"),
            ("t.exp().clamp(max=100)", "its shape is ()"),
            ("cosines / t.exp()", "so multiply"),
            ("cosines / t.exp().clamp(max=100)", "capped: exp(t)"),
            ("t.exp().clamp(max=100) ** 2 * cosines", "applied twice"),
            ("t.exp().clamp(min=100) * cosines", "works as a floor"),
            ("100 * cosines", "one number is"),
        ]
    ],
    "soft_targets": [
        (function("my_soft_targets(labels)", f"same = (labels[:, None] == labels[None, :]).float(); return {body}"), words)
        for body, words in [
            ("torch.eye(len(labels))", "only the diagonal counts"),
            ("same", "do not add up to 1"),
            ("same / same.sum()", "number of all true pairs"),
            ("same / len(labels)", "divided by N"),
            ("(same - torch.eye(len(same))) / (same.sum(1, keepdim=True) - 1).clamp(min=1)", "is left out"),
            ("(same - torch.eye(len(same))) / (same.sum(1, keepdim=True) - 1)", "left with 0/0"),
            ("F.normalize(same, dim=1)", "the rows have length 1"),
            ("(1 - same) / (1 - same).sum(1, keepdim=True)", "wrong pairs"),
            ("same.softmax(1)", "softmax of the 0s and 1s"),
            ("same / 2", "one number is"),
        ]
    ],
    "softmax_floor": [
        (function("my_softmax_floor(n)", f"return {body}"), words)
        for body, words in [
            ("0.0", "it is zero"),
            (f"math.log(1 + math.exp(-{GAP}))", "not one"),
            (f"math.log(1 + n * math.exp(-{GAP}))", "not n"),
            ("math.log(1 + (n - 1) * math.exp(-math.sqrt(n - 1)))", "have logit 0"),
            ("math.log(1 + (n - 1) * math.exp(-1))", "one-hot too"),
            (GAP, "gap between the logits"),
            ("math.log(n)", "this is chance"),
            ("str(math.log(n))", "of type str"),
            ("0.2785", "one number is"),
        ]
    ],
}
