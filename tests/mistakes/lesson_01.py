"""Wrong answers to the exercises of lesson 01, each with words of the message that it must get."""


def grid(expression: str) -> str:
    """A wrong `hold_out` that returns an expression of colour, shape, n and k."""
    return f"""
def hold_out(n, k):
    color, shape = torch.arange(n)[:, None], torch.arange(n)[None, :]
    return {expression}
"""


MISTAKES = {
    "read_labels": [
        (
            "def read_labels(labels):\n    return torch.stack([labels % 8, labels // 8 % 8, labels // 64], dim=1)",
            "the columns are in the wrong order",
        ),
        (
            "def read_labels(labels):\n    return torch.stack([labels // 64, labels % 8, labels // 8 % 8], dim=1)",
            "colour and shape are swapped",
        ),
        (
            "def read_labels(labels):\n    return torch.stack([labels // 64, labels // 8, labels % 8], dim=1)",
            "your colours run on through both sizes",
        ),
        (
            "def read_labels(labels):\n    return torch.stack([labels // 64, labels // 8 % 8, labels], dim=1)",
            "your shapes are the labels themselves",
        ),
        (
            "def read_labels(labels):\n    return torch.stack([labels / 64, labels / 8 % 8, labels % 8], dim=1)",
            "your numbers are fractions",
        ),
        (
            "def read_labels(labels):\n    return torch.stack([labels // 64, labels // 8 % 8, labels % 8])",
            "stack along dim=1",
        ),
        ("def read_labels(labels):\n    return [0, 0, 0]", "return a tensor"),
    ],
    "frame": [
        (
            "def frame(x, y):\n    return 0.15 - (torch.maximum(x.abs(), y.abs()) - 0.7).abs()",
            "inside and outside are swapped",
        ),
        ("def frame(x, y):\n    return torch.maximum(x.abs(), y.abs()) - 0.7 - 0.15", "this draws a full square"),
        (
            "def frame(x, y):\n    return (torch.maximum(x.abs(), y.abs()) - 0.7).abs() - 0.3",
            "the wall is twice too thick",
        ),
        ("def frame(x, y):\n    return (torch.maximum(x.abs(), y.abs()) - 0.7).abs()", "the middle line has no thickness"),
        ("def frame(x, y):\n    return (torch.hypot(x, y) - 0.7).abs() - 0.15", "this draws a round ring"),
        (
            "def frame(x, y):\n    return (torch.minimum(x.abs(), y.abs()) - 0.7).abs() - 0.15",
            "the smaller one gives bars that never end",
        ),
        ("def frame(x, y):\n    return (torch.maximum(x, y) - 0.7).abs() - 0.15", "only the right and the lower side"),
        ("def frame(x, y):\n    return torch.maximum(x.abs(), y.abs()) - 0.7", "this is a full square"),
        (
            "def frame(x, y):\n    x, y = x.abs() - 0.7, y.abs() - 0.7\n"
            "    outside = torch.hypot(x.clamp(min=0), y.clamp(min=0))\n"
            "    return (outside + torch.maximum(x, y).clamp(max=0)).abs() - 0.15",
            "round at the corners",
        ),
        ("def frame(x, y):\n    return torch.maximum(x.abs(), y.abs()) - 0.5", "one number is"),
    ],
    "hold_out": [
        (grid("color == shape"), "holds out 8 pairs"),
        (grid("(shape < k).expand(n, n)"), "never trains shape 0"),
        (grid("(color < k).expand(n, n)"), "never trains colour 0"),
        (grid("(shape - color) % n >= k"), "the other way round"),
        (grid("((shape - color) % n < k).int()"), "booleans"),
        (grid("(shape - color >= 0) & (shape - color < k)"), "holds out 15 pairs"),
        (grid("(color < 4) & (shape < 4)"), "holds colour 0 out 4 times"),
        (grid("((shape - color) % n < k).flatten()"), "one row for each colour"),
        (grid("(2 * color // 3 + shape) % n < k"), "holds shape"),
    ],
    "write_captions": [
        (
            "def write_captions(labels, choice, class_names, templates):\n"
            "    return [templates[0].replace('{}', class_names[label]) for label in labels.tolist()]",
            "every picture has the first template",
        ),
        (
            "def write_captions(labels, choice, class_names, templates):\n"
            "    return [templates[label].replace('{}', class_names[label]) for label in labels.tolist()]",
            "the template comes from the label",
        ),
        (
            "def write_captions(labels, choice, class_names, templates):\n"
            "    return [templates[t].replace('{}', class_names[t]) for t in choice.tolist()]",
            "the name comes from `choice`",
        ),
        (
            "def write_captions(labels, choice, class_names, templates):\n"
            "    return [templates[t].replace('{}', class_names[i % 3]) for i, t in enumerate(choice.tolist())]",
            "picture i has class name i",
        ),
        (
            "def write_captions(labels, choice, class_names, templates):\n"
            "    return [class_names[label] for label in labels.tolist()]",
            "these are the bare names",
        ),
        (
            "def write_captions(labels, choice, class_names, templates):\n"
            "    return [templates[t] + ' ' + class_names[label] for label, t in zip(labels, choice)]",
            "the name stands behind the template",
        ),
        (
            "def write_captions(labels, choice, class_names, templates):\n"
            "    return [templates[label].replace('{}', class_names[t]) for label, t in zip(labels, choice)]",
            "label and choice are exchanged",
        ),
        (
            "def write_captions(labels, choice, class_names, templates):\n"
            "    return [templates[t] for t in choice.tolist()]",
            "the {} is still there",
        ),
        (
            "def write_captions(labels, choice, class_names, templates):\n"
            "    return [(templates[t], class_names[label]) for label, t in zip(labels, choice)]",
            "each caption is one string",
        ),
        (
            "def write_captions(labels, choice, class_names, templates):\n"
            "    return [templates[t].replace('{}', str(label)) for label, t in zip(labels.tolist(), choice.tolist())]",
            "a number stands where the name belongs",
        ),
        (
            "def write_captions(labels, choice, class_names, templates):\n"
            "    return [templates[t].replace('{}', str(label)) for label, t in zip(labels, choice)]",
            "a tensor is printed into the caption",
        ),
        (
            "def write_captions(labels, choice, class_names, templates):\n"
            "    return [template.replace('{}', name) for template in templates for name in class_names]",
            "each picture gets one caption",
        ),
        (
            "def write_captions(labels, choice, class_names, templates):\n"
            "    return (templates[t].replace('{}', class_names[label]) for label, t in zip(labels, choice))",
            "return a list of strings",
        ),
    ],
    "to_pixels": [
        (
            "def to_pixels(images):\n    from miniclip_utils.data import MEAN, STD\n"
            "    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)\n"
            "    return images * std + mean",
            "your values run from 0 to 1",
        ),
        (
            "def to_pixels(images):\n    from miniclip_utils.data import MEAN, STD\n"
            "    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)\n"
            "    return ((images * std + mean) * 255).round()",
            "pixels are whole bytes",
        ),
        (
            "def to_pixels(images):\n    from miniclip_utils.data import MEAN, STD\n"
            "    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)\n"
            "    return ((images * std + mean) * 255).to(torch.uint8)",
            "cuts the fraction off",
        ),
        (
            "def to_pixels(images):\n    from miniclip_utils.data import MEAN, STD\n"
            "    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)\n"
            "    return (images * std + mean).to(torch.uint8) * 255",
            "almost all is black",
        ),
        (
            "def to_pixels(images):\n    from miniclip_utils.data import MEAN\n"
            "    mean = torch.tensor(MEAN).view(3, 1, 1)\n"
            "    return ((images + mean) * 255).round().clamp(0, 255).to(torch.uint8)",
            "the deviation is missing",
        ),
        (
            "def to_pixels(images):\n    from miniclip_utils.data import STD\n"
            "    std = torch.tensor(STD).view(3, 1, 1)\n"
            "    return (images * std * 255).round().clamp(0, 255).to(torch.uint8)",
            "the mean is missing",
        ),
        (
            "def to_pixels(images):\n    from miniclip_utils.data import MEAN, STD\n"
            "    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)\n"
            "    return ((images + mean) * std * 255).round().to(torch.uint8)",
            "the steps are in the wrong order",
        ),
        (
            "def to_pixels(images):\n    from miniclip_utils.data import MEAN, STD\n"
            "    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)\n"
            "    return ((images - mean) / std * 255).round().clamp(0, 255).to(torch.uint8)",
            "this normalises a second time",
        ),
        (
            "def to_pixels(images):\n    from miniclip_utils.data import MEAN, STD\n"
            "    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)\n"
            "    return ((images * mean + std) * 255).round().to(torch.uint8)",
            "mean and deviation are the other way round",
        ),
        (
            "def to_pixels(images):\n    from miniclip_utils.data import MEAN, STD\n"
            "    mean, std = torch.tensor(MEAN), torch.tensor(STD)\n"
            "    return ((images * std + mean) * 255).round().to(torch.uint8)",
            "your code raised RuntimeError",
        ),
    ],
    "ensemble": [
        (
            "def ensemble(text_features):\n    return F.normalize(text_features, dim=-1).mean(dim=0)",
            "the mean is shorter than 1",
        ),
        (
            "def ensemble(text_features):\n    return F.normalize(text_features, dim=-1).sum(dim=0)",
            "the sum is not of length 1",
        ),
        (
            "def ensemble(text_features):\n    return F.normalize(text_features.mean(dim=0), dim=-1)",
            "long vectors outvote short ones",
        ),
        ("def ensemble(text_features):\n    return text_features.mean(dim=0)", "normalise before and after"),
        (
            "def ensemble(text_features):\n    return F.normalize(F.normalize(text_features, dim=-1).mean(dim=1), dim=-1)",
            "you averaged over the classes",
        ),
        (
            "def ensemble(text_features):\n    return F.normalize(F.normalize(text_features, dim=0).mean(dim=0), dim=-1)",
            "the numbers of one vector are dimension -1",
        ),
        (
            "def ensemble(text_features):\n    return F.normalize(F.normalize(text_features).mean(dim=0))",
            "over the labels",
        ),
        ("def ensemble(text_features):\n    return F.normalize(text_features, dim=-1)", "one vector for each sentence"),
        ("def ensemble(text_features):\n    return F.normalize(text_features, dim=-1)[0]", "the first template alone"),
    ],
}
