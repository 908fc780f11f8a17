"""Using a trained model: `python -m miniclip_utils.inference --run shapes IMAGE …`."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from .checkpoint import Run, bundled_runs, load_run
from .cli import run_command
from .errors import UserError
from .evaluate import class_features, encode_images
from .folders import CAPTIONS
from .image_files import ImageFiles, first_few, read_image, read_images
from .tokenizer import split_words


def classify(
    run: Run, images: Tensor, labels: Sequence[str], templates: Sequence[str] | None = None, top: int = 5
) -> list[list[dict[str, Any]]]:
    """Names images by choosing among labels: the softmax over the labels of cosine times the learned scale.

    Args:
        images: uint8 (N, 3, image_size, image_size).
        labels: two or more, in any words that the model has learned.
        templates: an ensemble of them; without, the first template that the run was trained with.
        top: how many labels to return for each image, at most.

    Returns:
        for each image its likeliest labels, each as {"label", "probability", "similarity"}.

    Raises:
        UserError: see `check_labels`; or there is no template, or one without `{}`.
    """
    templates = run.config.templates[:1] if templates is None else templates
    check_labels(run, labels)
    similarity = encode_images(run.model, images) @ class_features(run.model, run.tokenizer, labels, templates).T
    probability = (run.model.logit_scale.exp() * similarity).softmax(dim=1)
    best = probability.topk(min(top, len(labels)), dim=1).indices
    return [
        [{"label": labels[k], "probability": p[k].item(), "similarity": s[k].item()} for k in order.tolist()]
        for p, s, order in zip(probability, similarity, best, strict=True)
    ]


def check_labels(run: Run, labels: Sequence[str]) -> None:
    """Refuses, with a `UserError`, fewer than two labels, empty or too long ones, and two that read the same."""
    if len(labels) < 2:
        raise UserError(f"the model chooses among labels, and needs at least two: there are {len(labels)}")
    tokens: dict[tuple[int, ...], str] = {}
    for label in labels:
        if not label.strip():
            raise UserError("a label is empty: name what the picture may show")
        row = tuple(run.tokenizer(label)[0].tolist())
        if row in tokens:
            raise UserError(f"the labels {tokens[row]!r} and {label!r} read the same to this model: leave one out")
        tokens[row] = label


def search_images(run: Run, query: Tensor, images: Tensor, top: int = 5) -> list[tuple[int, float]]:
    """The index and cosine of the images most similar to a query from either tower, best first.

    Args:
        query: L2-normalised feature (embed_dim,), of an image or of a text.
        images: uint8 (N, 3, image_size, image_size).
    """
    best = (encode_images(run.model, images) @ query).topk(min(top, len(images)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def text_query(run: Run, text: str) -> Tensor:
    """The L2-normalised feature (embed_dim,) of a text; an empty, too long or wholly unknown one is a `UserError`."""
    if not text.strip():
        raise UserError("the text to look for is empty: describe a picture")
    if set(split_words(text)) <= set(run.tokenizer.unknown_words([text])):
        raise UserError(f"the model knows none of the words in {text!r}: describe the picture in words that it has learned")
    return class_features(run.model, run.tokenizer, [text], ["{}"])[0]


def main() -> None:
    says = "Name images, or find them, with a trained mini-CLIP."
    parser = argparse.ArgumentParser(prog="python -m miniclip_utils.inference", description=says)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files to name")
    parser.add_argument("--run", required=True, help=f"folder of a run, or one of {', '.join(bundled_runs())}")
    parser.add_argument("--labels", nargs="*", metavar="LABEL", help="names to choose among (default: the trained ones)")
    about_template = "sentence with {} for the label; several make an ensemble (default: the first one that was trained)"
    parser.add_argument("--template", nargs="+", help=about_template)
    parser.add_argument("--similar-to", metavar="IMAGE", help="find the images in --in that look like this one")
    parser.add_argument("--find", metavar="TEXT", help="find the images in --in that this text describes")
    parser.add_argument("--in", dest="folder", metavar="FOLDER", help="folder or archive of images to search")
    parser.add_argument("--top", type=int, default=5, help="how many answers (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", default="cpu", help='"cpu", "cuda" or "mps" (default: cpu)')
    options = parser.parse_args()

    tasks = [bool(options.images), options.similar_to is not None, options.find is not None]
    if sum(tasks) != 1:
        raise UserError("say what to do with one of: image files to name, --similar-to IMAGE, --find TEXT")
    if (options.folder is None) != bool(options.images):
        raise UserError("--similar-to and --find search the images of --in FOLDER; image files are named without it")
    if not options.images and (options.labels is not None or options.template is not None):
        raise UserError(
            "--labels and --template are for image files to name: leave them out, and write --find as a sentence"
        )
    if options.top < 1:
        raise UserError(f"--top {options.top} leaves no answer: give it 1 or more")

    run = load_run(options.run, options.device)
    labels = run.config.class_names if options.labels is None else options.labels
    words = run.tokenizer.unknown_words([*labels, *(options.template or []), options.find or ""])
    if unknown := [word for word in words if word not in "{}"]:
        never = f"the model never learned {', '.join(map(repr, unknown))}, which all read the same to it"
        known = first_few((word for word in run.tokenizer.vocabulary if word.isalpha()), most=100)
        print(f"note: {never}. It knows: {known}", file=sys.stderr)
    answer: dict[str, Any] = {"run": options.run, "unknown_words": unknown}
    size = run.config.model.image_size
    if options.images:
        images = torch.stack([read_image(image, size) for image in options.images])
        named = zip(options.images, classify(run, images, labels, options.template, options.top), strict=True)
        answer["images"] = [{"image": image, "predictions": best} for image, best in named]
    else:
        if options.find is not None:
            query = text_query(run, options.find)
        else:
            query = encode_images(run.model, read_image(options.similar_to, size)[None])[0]
        files = ImageFiles(options.folder)
        names = [name for name in sorted(files.files) if PurePosixPath(name).name != CAPTIONS]
        names = [name for name in names if not is_same_file(files.path / name, options.similar_to)]
        if not names:
            raise UserError(f"there are no images to search in {options.folder!r}")
        images, kept = read_images(files, names, size, skip_bad_images=True)
        found = search_images(run, query, images, options.top)
        answer["found"] = [{"image": str(files.path / names[kept[k]]), "similarity": cosine} for k, cosine in found]
    print(json.dumps(answer) if options.json else "\n".join(lines_of(answer)))


def is_same_file(path: Path, other: str | None) -> bool:
    return other is not None and path.exists() and path.samefile(other)


def lines_of(answer: dict[str, Any]) -> Iterator[str]:
    """The answer for human readers."""
    for image in answer.get("images", []):
        yield f"{image['image']}:"
        yield from (f"  {100 * best['probability']:5.1f}%  {best['label']}" for best in image["predictions"])
    yield from (f"  {found['similarity']:6.3f}  {found['image']}" for found in answer.get("found", []))


if __name__ == "__main__":
    run_command(main)
