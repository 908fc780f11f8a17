"""Runs on disk: weights in safetensors, all else in JSON, nothing in pickles.

A file that cannot be written is a `UserError`, see `write_file`; the one that was there is kept.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.optim import Optimizer

from .device import find_device
from .errors import UserError
from .files import read_json, write_file, write_json
from .model import MiniCLIP, ModelConfig
from .tokenizer import SPECIAL_TOKENS, WordTokenizer

PER_RUN = ("text_encoder.token_embedding.weight", "text_encoder.positional_embedding")  # as large as the captions want
MOST_SEEDS = 2**42
WEIGHTS_FOLDER = Path(__file__).parent / "weights"  # of the runs that come with the course


@dataclass(frozen=True)
class RunConfig:
    """The settings that a run was started with: `config.json`."""

    dataset: str
    preset: str
    seed: int
    model: ModelConfig
    recipe: dict[str, Any]
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    vocabulary: tuple[str, ...]
    context_length: int
    start: str | None = None  # the run whose weights it began with
    validation: bool = True  # False: the validation pictures are trained on, too


@dataclass
class Run:
    """A model with its tokenizer and settings. `metrics` is None until training has ended."""

    model: MiniCLIP
    tokenizer: WordTokenizer
    config: RunConfig
    metrics: dict[str, Any] | None = None


def new_run(config: RunConfig, where: str = "config.json") -> Run:
    """A run with untrained weights, drawn from torch's global random numbers.

    A config from which no model can be made is a `UserError`, whose sentence calls it `where`.
    """
    tokenizer = WordTokenizer(config.vocabulary, config.context_length)
    try:
        model = MiniCLIP(config.model, len(tokenizer), config.context_length)
    except (TypeError, ValueError, RuntimeError, MemoryError, ArithmeticError, LookupError) as error:
        raise UserError(f"{where} does not describe a model ({error})") from error
    return Run(model, tokenizer, config)


def load_run(run: str | Path, device: str | torch.device = "cpu") -> Run:
    """Loads a run, ready to use: in evaluation mode, on `device`.

    Args:
        run: "shapes", "shapes-vit" or "cifar10" for the weights that come with the course, or a folder that training wrote,
            finished or not.

    Raises:
        UserError: the folder holds no run, or a damaged one, or weights of another config; or the device does not work.
    """
    device = find_device(device)
    folder = WEIGHTS_FOLDER / run if str(run) in bundled_runs() else Path(os.path.expanduser(run))
    loaded = new_run(read_config(folder), repr(str(folder / "config.json")))
    is_finished = (folder / "model.safetensors").exists()
    weights = folder / ("model.safetensors" if is_finished else "checkpoint.safetensors")
    tensors = read_tensors(weights) if is_finished else _under("model.", read_tensors(weights))
    load_weights(loaded.model.state_dict(), tensors, repr(str(weights)))
    if (folder / "metrics.json").exists():
        loaded.metrics = read_json(folder / "metrics.json")
    loaded.model.to(device).eval()
    return loaded


def bundled_runs() -> list[str]:
    """The names of the weights that come with the course."""
    return sorted(path.parent.name for path in WEIGHTS_FOLDER.glob("*/config.json"))


@torch.no_grad()
def start_from(run: Run, start: Run) -> None:
    """Gives a run the weights of another one of the same architecture, but for words and positions that this one lacks.

    The image tower, both projections, the temperature and the blocks of the text tower are taken over whole, and so is
    the vector of each word that both vocabularies hold. The other vectors stay as they are.

    Raises:
        UserError: the other run has another architecture.
    """
    if run.config.model != start.config.model:
        raise UserError(f"a run cannot start from {start.config.dataset!r}'s: its model is of another architecture")
    given = start.model.state_dict()
    rows = {name: tensor.clone() for name, tensor in run.model.state_dict().items() if name in PER_RUN}
    vectors, positions = (rows[name] for name in PER_RUN)
    old_vectors, old_positions = (given[name] for name in PER_RUN)
    known = {word: row for row, word in enumerate(SPECIAL_TOKENS + start.tokenizer.vocabulary)}
    for row, word in enumerate(SPECIAL_TOKENS + run.tokenizer.vocabulary):
        if word in known:
            vectors[row] = old_vectors[known[word]]
    both = min(len(positions), len(old_positions))
    positions[:both] = old_positions[:both]
    run.model.load_state_dict({**given, **rows})


def save_model(model: MiniCLIP, folder: Path) -> None:
    """Writes `model.safetensors`."""
    _write_tensors(folder / "model.safetensors", model.state_dict())


def save_checkpoint(model: MiniCLIP, optimizers: Sequence[Optimizer], folder: Path, progress: dict[str, Any]) -> None:
    """Writes `checkpoint.safetensors`: weights, optimizer state and progress in one file, so that they always agree."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            tensors |= {f"optimizer.{key}.{names[parameter]}": value for key, value in state.items()}
    _write_tensors(folder / "checkpoint.safetensors", tensors, {"progress": json.dumps(progress)})


def load_checkpoint(model: MiniCLIP, optimizers: Sequence[Optimizer], folder: Path) -> dict[str, Any]:
    """Puts model and optimizers back to where `save_checkpoint` left them. Returns the progress that was saved.

    Raises:
        UserError: the file is damaged, of another config, or not a checkpoint.
    """
    path = folder / "checkpoint.safetensors"
    tensors = read_tensors(path)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    load_weights(model.state_dict(), _under("model.", tensors), repr(str(path)))
    try:
        progress = dict(json.loads(metadata["progress"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{str(path)!r} holds weights, but not how far their training was: start anew elsewhere") from error
    owner = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter in owner}
    states = [(*name.partition("."), value) for name, value in _under("optimizer.", tensors).items()]
    if {name for _, _, name, _ in states} != trained.keys():
        raise UserError(f"{str(path)!r} does not hold the optimizer's state of each weight: start anew in another folder")
    for key, _, name, value in states:
        parameter = trained[name]
        if value.shape == parameter.shape:  # in the parameter's own memory order, for the same sums bit for bit
            value = torch.empty_like(parameter).copy_(value)
        owner[parameter].state[parameter][key] = value
    return progress


@torch.no_grad()
def load_weights(own: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str, config: str = "config.json") -> None:
    """Copies tensors into a model's own, its state dict. One that is missing, not known or misshapen is a `UserError`.

    Its sentence calls the source of the tensors `where`, and that of the model's architecture `config`.
    """
    for name in sorted(own.keys() | given.keys()):
        if name not in given:
            problem = f"lacks {name!r}"
        elif name not in own:
            problem = f"has {name!r}, which {config} does not know"
        elif own[name].shape != given[name].shape:
            problem = f"has {name!r} in shape {tuple(given[name].shape)}, and {config} wants {tuple(own[name].shape)}"
        else:
            continue
        raise UserError(f"{where} {problem}: it is not whole, or of another model than {config}")
    for name, tensor in own.items():
        tensor.copy_(given[name])


def write_config(config: RunConfig, folder: Path) -> None:
    """Writes `config.json`."""
    write_json(folder / "config.json", asdict(config))


def read_config(folder: Path) -> RunConfig:
    """Reads `config.json`; a missing one, or one with a value missing, not known or of another type, is a `UserError`."""
    if not os.path.isdir(folder):  # unlike Path's, never an OSError, such as for a name that is too long
        raise UserError(f"there is no run {str(folder)!r}: name a folder that training wrote, or one of {bundled_runs()}")
    raw = read_json(folder / "config.json")
    try:
        return _from_json(RunConfig, raw | {"model": _from_json(ModelConfig, raw["model"])})
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{str(folder / 'config.json')!r} is not the config of a run ({error})") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file. One that is missing or damaged is a `UserError`; so is a pickle, without unpickling it."""
    try:
        with open(path, "rb"):  # safetensors would call a file without read permission missing
            return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"there are no weights {str(path)!r}: the run has not finished its first epoch") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} is not a whole safetensors file ({error}): train again or restore it") from error


def _write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}  # no other memory order can be saved
    write_file(path, safetensors.torch.save(contiguous, metadata))


def _from_json(config_class: Any, content: dict[str, Any]) -> Any:
    """A config from a JSON object, whose lists become tuples. Raises a TypeError that names a value of another type."""
    config = config_class(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})
    for field in fields(config):
        value = getattr(config, field.name)
        if not (is_seed(value) if field.name == "seed" else _fits(value, field.type)):
            raise TypeError(f"{field.name!r} cannot be {value!r}")
    return config


def is_seed(value: Any) -> bool:
    """Whether it is a whole number small enough: each epoch has a seed of its own, about a million times larger."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MOST_SEEDS


def _fits(value: Any, type_: Any) -> bool:
    """Whether a value is of the type of a config's field."""
    if get_origin(type_) is tuple:
        return isinstance(value, tuple) and all(_fits(item, get_args(type_)[0]) for item in value)
    if type_ is int:
        return isinstance(value, int) and 0 <= value <= 10_000  # a larger size would ask for all memory
    return isinstance(value, dict if get_origin(type_) is dict else type_)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
