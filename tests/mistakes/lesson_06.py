"""Typical wrong answers to the exercises of lesson 06, and words of what their checks must say."""


def probabilities(body: str) -> str:
    return (
        "def my_probabilities(image_features, text_features, t):\n"
        "    i, c = F.normalize(image_features, dim=1), F.normalize(text_features, dim=1)\n"
        f"    return {body}\n"
    )


def among(body: str) -> str:
    return f"def my_answer_among(similarity, allowed):\n    return {body}\n"


def words(body: str) -> str:
    return (
        "def my_wrong_words(predicted, labels):\n"
        "    p, q = predicted, labels\n"
        "    size, color, shape = p // 64 != q // 64, p // 8 % 8 != q // 8 % 8, p % 8 != q % 8\n"
        "    wrong = torch.stack([size, color, shape])\n"
        f"    return {body}\n"
    )


def recall(body: str) -> str:
    return (
        "def my_recall(similarity, query_labels, candidate_labels, k):\n"
        "    nearest = similarity.topk(k, dim=1).indices\n"
        "    hits = candidate_labels[nearest] == query_labels[:, None]\n"
        f"    return {body}\n"
    )


def cam(body: str) -> str:
    return (
        "def my_weighted_map(activations, gradients):\n"
        "    a, g, w = activations, gradients, gradients.mean(dim=(2, 3), keepdim=True)\n"
        f"    return {body}\n"
    )


def shift(body: str) -> str:
    return (
        "def my_shift_gap(image_features, text_features, share):\n"
        "    i, t = image_features, text_features\n"
        "    gap = i.mean(dim=0) - t.mean(dim=0)\n"
        "    unit = lambda x: F.normalize(x, dim=1)\n"
        f"    return {body}\n"
    )


MISTAKES = {
    "probabilities": [
        (probabilities("(t.exp() * image_features @ text_features.T).softmax(1)"), "L2 norm is missing"),
        (probabilities("(i @ c.T).softmax(1)"), "scale is missing"),
        (probabilities("(t * i @ c.T).softmax(1)"), "take exp(t)"),
        (probabilities("(i @ c.T / t.exp()).softmax(1)"), "it divides"),
        (probabilities("(t.exp() * i @ c.T).softmax(0)"), "over the pictures"),
        (probabilities("(t.exp() * c @ i.T).softmax(0)"), "transposed"),
        (probabilities("t.exp() * i @ c.T"), "softmax is missing"),
        (probabilities("i @ c.T"), "bare cosines: scale"),
        (probabilities("(t.exp() * i @ text_features.T).softmax(1)"), "only the pictures are normalised"),
        (probabilities("(t.exp() * image_features @ c.T).softmax(1)"), "only the texts are normalised"),
        (probabilities("(100 * i @ c.T).softmax(1)"), "OpenAI's CLIP"),
        (probabilities("(t.exp() * i @ c.T).sigmoid()"), "judged by itself"),
        (probabilities("F.one_hot((i @ c.T).argmax(1), len(c)).float()"), "one number is 1"),
        (probabilities("(i @ c.T).argmax(1)"), "its shape is"),
        (probabilities("torch.full((len(i), len(c)), 0.25)"), "one number is 0.25"),
    ],
    "answer_among": [
        (among("similarity.argmax(1)"), "is not used"),
        (among("similarity[:, allowed].argmax(1)"), "translate them back"),
        (among("(similarity * allowed).argmax(1)"), "beats negative ones"),
        (among("similarity.masked_fill(allowed, -math.inf).argmax(1)"), "wrong way round"),
        (among("similarity.masked_fill(~allowed, -math.inf).argmax(0)"), "best picture of each class"),
        (among("similarity[:, allowed].amax(1)"), "these are similarities"),
        (among("torch.ones(len(similarity))"), "one number is"),
    ],
    "wrong_words": [
        (words("(~wrong).sum(1)"), "right words"),
        (words("wrong.sum(1).flip(0)"), "order is wrong"),
        (words("wrong.sum(1)[[0, 2, 1]]"), "colour and shape are swapped"),
        (words("torch.stack([size, p // 8 != q // 8, shape]).sum(1)"), "counts a wrong size as well"),
        (words("torch.stack([size, color, p != q]).sum(1)"), "counts every wrong answer"),
        (words("wrong.float().mean(1)"), "these are shares"),
        (words("wrong[:, wrong.sum(0) == 1].sum(1)"), "two wrong words is left out"),
        (words("(p != q).sum()"), "number of wrong answers"),
        (words("wrong.sum(1).tolist()"), "of type list"),
        (words("torch.zeros(3)"), "one number is"),
    ],
    "recall": [
        (recall("(nearest == torch.arange(len(nearest))[:, None]).any(1).float().mean()"), "by index"),
        (recall("hits.float().mean()"), "(precision)"),
        (recall("hits.all(1).float().mean()"), "all k must be right"),
        (recall("hits[:, 0].float().mean()"), "this is recall@1"),
        (
            recall(
                "(candidate_labels[(-similarity).topk(k, dim=1).indices] == query_labels[:, None]).any(1).float().mean()"
            ),
            "least similar",
        ),
        (
            recall("(query_labels[similarity.topk(k, dim=0).indices] == candidate_labels).any(0).float().mean()"),
            "queries of each candidate",
        ),
        (recall("hits.any(1).sum()"), "number of queries"),
        (recall("hits.any(1)"), "single queries"),
        (recall("torch.tensor(1.0)"), "one number is"),
    ],
    "weighted_map": [
        (cam("(w * a).sum(1)"), "ReLU is missing"),
        (cam("(w * a).relu().sum(1)"), "comes too early"),
        (cam("(w * a).sum(1).abs()"), "absolute value"),
        (cam("(g * a).sum(1).relu()"), "not averaged: a channel"),
        (cam("(g.sum(dim=(2, 3), keepdim=True) * a).sum(1).relu()"), "added up, not averaged"),
        (cam("(a.mean(dim=(2, 3), keepdim=True) * g).sum(1).relu()"), "averaged the activations"),
        (cam("a.sum(1).relu()"), "gradients are not used"),
        (cam("(w * a).mean(1).relu()"), "channels are averaged"),
        (cam("(g.mean(dim=(0, 2, 3), keepdim=True) * a).sum(1).relu()"), "over all pictures"),
        (cam("(w * a).sum(1, keepdim=True).relu()"), "its shape is"),
        (cam("torch.zeros(len(a), 4, 4)"), "one number is"),
    ],
    "shift_gap": [
        (shift("i - share * gap, t + share * gap"), "normalise again"),
        (shift("unit(i + share * gap), unit(t - share * gap)"), "the gap grows"),
        (shift("unit(i - share * gap), unit(t - share * gap)"), "the same way"),
        (shift("unit(i - share * gap), t"), "only the pictures"),
        (shift("i, unit(t + share * gap)"), "only the sentences"),
        (shift("unit(i - share * F.normalize(gap, dim=0)), unit(t + share * F.normalize(gap, dim=0))"), "unit vector"),
        (
            shift("unit(i - share * (i - i.mean(0))), unit(t - share * (t - t.mean(0)))"),
            "towards its own mean",
        ),
        (shift("unit(i - gap), unit(t + gap)"), "share is not used"),
        (shift("unit(i - share * gap)"), "return two tensors"),
        (shift("unit(t + share * gap), unit(i - share * gap)"), "the two are swapped"),
        (shift("unit(i - share * gap).T, unit(t + share * gap)"), "shape of the pictures"),
        (shift("i, t"), "one number is"),
    ],
}
