"""Caption templates, which turn a class name into a sentence (paper §3.1.4)."""

from collections.abc import Sequence

from .errors import UserError

# Training draws one of these for each image, so that no wording becomes part of a class.
TEMPLATES = (
    "a photo of a {}.",
    "a picture of a {}.",
    "an image of the {}.",
    "this is a {}.",
    "here is the {}.",
)

# Never trained: known words in new orders, to measure the effect of wording alone. None is longer than the longest above,
# which sets the context length of a model.
HELD_OUT_TEMPLATES = (
    "a photo of the {}.",
    "an image of a {}.",
    "this is the {}.",
)


def fill(template: str, names: Sequence[str]) -> list[str]:
    """Puts each name in the place of the template's `{}`. The article stays as it is, as in CLIP's own prompts."""
    return [template.replace("{}", name) for name in names]


def check_templates(templates: Sequence[str]) -> None:
    """Refuses templates that would give every class the same sentence.

    Raises:
        UserError: there is no template, or one without `{}`.
    """
    if not templates:
        raise UserError("there is no template: give one or more sentences with {} for the label")
    for template in templates:
        if "{}" not in template:
            raise UserError(f"the template {template!r} has no place for the label: write {{}} where it goes")
