"""A trained model for programs without PyTorch: `python -m miniclip_utils.export --run shapes --out DIR`.

Writes both towers as ONNX, and in `clip.json` what else a program needs to use them. A tower holds all that is computed
on the way, so that nobody has to rebuild it elsewhere: pictures go in as bytes, texts as token numbers, and out come
vectors of norm 1. The cosine of a picture and a text is the dot product of theirs.
"""

import argparse
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoint import Run, bundled_runs, load_run
from .cli import run_command
from .data import normalize
from .errors import UserError
from .files import write_file, write_json
from .model import MiniCLIP, evaluating
from .openai import CONFIGS, load_clip
from .prompts import TEMPLATES, fill
from .shapes import CLASS_NAMES, make_shapes
from .tokenizer import SPECIAL_TOKENS

PACKAGES = ("onnx", "onnxruntime", "onnxscript")  # of the extra `export`
TOLERANCE = 1e-5  # by which a number of a feature may differ from PyTorch's
PICTURES = 1_000  # that are compared
OPSET = 18  # of ONNX: the version of its operators that torch's exporter writes by itself


class ImageTower(nn.Module):
    """uint8 images (N, 3, image_size, image_size) → L2-normalised features (N, embed_dim)."""

    def __init__(self, model: MiniCLIP):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return F.normalize(self.model.encode_image(normalize(inputs.float())), dim=-1)


class TextTower(nn.Module):
    """Token numbers, int64 (N, context_length) → L2-normalised features (N, embed_dim)."""

    def __init__(self, model: MiniCLIP):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return F.normalize(self.model.encode_text(inputs), dim=-1)


def to_onnx(tower: nn.Module, example: Tensor) -> bytes:
    """A tower as the content of a file in ONNX, for batches of any size.

    Args:
        example: inputs, two or more.
    """
    import onnx

    # Strict, so that the size of the batch is followed through all Python code. Else `len(x)` would make it a constant.
    batch = torch.export.Dim("batch", max=2**31 - 1)
    program = torch.export.export(tower, (example,), dynamic_shapes=({0: batch},), strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        exported = torch.onnx.export(
            program, input_names=["inputs"], output_names=["features"], opset_version=OPSET, dynamo=True, verbose=False
        )
    assert exported is not None
    content = exported.model_proto
    for value in (*content.graph.input, *content.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    content.graph.ClearField("value_info")  # shapes of what lies between, in names of the exporter's own
    for part in (content.graph, *content.graph.node):
        part.ClearField("metadata_props")  # where on this machine the code lies
    onnx.checker.check_model(content, full_check=True)
    return content.SerializeToString()


@torch.inference_mode()
def largest_difference(tower: nn.Module, content: bytes, inputs: Tensor) -> float:
    """The largest difference between a number of a feature by ONNX Runtime and by PyTorch; NaN if either has one.

    The first input goes alone, and the last batch is smaller than the others: so the size of a batch is tested too.
    """
    from onnxruntime import InferenceSession

    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    differences = []
    for batch in (inputs[:1], *inputs[1:].split(64)):
        (features,) = session.run(None, {"inputs": batch.numpy()})
        differences.append((torch.from_numpy(features) - tower(batch)).abs().max())
    return torch.stack(differences).max().item()


def export(model: MiniCLIP, tokens: Tensor, description: dict[str, Any], out: Path) -> dict[str, float]:
    """Writes `image.onnx`, `text.onnx` and `clip.json` into a folder, if the features are PyTorch's to `TOLERANCE`.

    Args:
        model: on the CPU.
        tokens: int64 (N, context_length), the captions to compare; the pictures are drawings, at the model's image size.
        description: goes to `clip.json`, with the image size, and the "scale" exp(t) that a softmax of cosines needs.
        out: made if it is not there.

    Returns:
        for either tower's file the largest difference, see `largest_difference`.

    Raises:
        UserError: a tower's features differ; a package is not installed; nothing can be written.
    """
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        raise UserError(f"the export needs {missing[0]}: run 'python -m pip install {' '.join(PACKAGES)}'")
    size = model.config.image_size
    images = F.interpolate(make_shapes("test")[0][:PICTURES], (size, size))
    contents, differences = {}, {}
    with evaluating(model):
        for name, tower, inputs in (("image.onnx", ImageTower(model), images), ("text.onnx", TextTower(model), tokens)):
            contents[name] = to_onnx(tower.eval(), inputs[:2])
            differences[name] = largest_difference(tower, contents[name], inputs)
            if not differences[name] <= TOLERANCE:  # nor is NaN
                raise UserError(
                    f"{name!r} is not the model: its features differ by up to {differences[name]:.1g} from PyTorch's, "
                    f"and {TOLERANCE:g} is allowed. Nothing was written; bring {', '.join(PACKAGES)} up to date"
                )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{str(out)!r} cannot be a folder ({error.strerror}): choose another --out") from error
    for name, content in contents.items():
        write_file(out / name, content)
    write_json(out / "clip.json", {**description, "image_size": size, "scale": model.logit_scale.exp().item()})
    return differences


def export_run(run: Run, out: Path) -> dict[str, float]:
    """`export` of a run, proved on all captions that it was trained with. The place of a word in "words" is its number."""
    captions = [caption for template in run.config.templates for caption in fill(template, run.config.class_names)]
    description = {
        "words": [*SPECIAL_TOKENS, *run.tokenizer.vocabulary],
        "context_length": run.tokenizer.context_length,
        "class_names": run.config.class_names,
        "templates": run.config.templates,
    }
    return export(run.model, run.tokenizer(captions), description, out)


def export_clip(model: MiniCLIP, out: Path) -> dict[str, float]:
    """`export` of a model of OpenAI's, see `load_clip`, proved on the captions of the drawings.

    Its words are parts of words, in CLIP's byte-pair encoding: "merges" has the pairs to join, the most frequent first.
    """
    import open_clip

    tokenizer = open_clip.get_tokenizer("ViT-B-32")  # that of them all
    captions = [caption for template in TEMPLATES for caption in fill(template, CLASS_NAMES)]
    description = {
        "words": list(tokenizer.encoder),
        "merges": list(tokenizer.bpe_ranks),
        "context_length": tokenizer.context_length,
    }
    return export(model, tokenizer(captions), description, out)


def main() -> None:
    says = "Export both towers of a trained model as ONNX, and prove that they give PyTorch's features."
    parser = argparse.ArgumentParser(prog="python -m miniclip_utils.export", description=says)
    choices = f"folder of a run, or one of {', '.join((*bundled_runs(), *CONFIGS))}"
    parser.add_argument("--run", required=True, help=choices)
    parser.add_argument("--weights", type=Path, help="safetensors file for one of OpenAI's models (default: download it)")
    parser.add_argument("--out", required=True, type=Path, help="folder for image.onnx, text.onnx and clip.json")
    options = parser.parse_args()
    if options.run in CONFIGS:
        differences = export_clip(load_clip(options.run, options.weights), options.out)
    elif options.weights:
        raise UserError(f"--weights goes with one of {', '.join(CONFIGS)}: the run {options.run!r} has its own")
    else:
        differences = export_run(load_run(options.run), options.out)
    for name, difference in differences.items():
        megabytes = (options.out / name).stat().st_size / 1e6
        print(f"{options.out / name}  {megabytes:.1f} MB, features as PyTorch's to {difference:.0e}")
    print(options.out / "clip.json")


if __name__ == "__main__":
    run_command(main)
