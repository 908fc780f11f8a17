"""OpenAI's architectures against open_clip's own models with random weights: nothing is downloaded."""

import csv
from dataclasses import replace
from importlib.resources import files

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from miniclip_utils import UserError
from miniclip_utils.model import MiniCLIP
from miniclip_utils.openai import (
    CONFIGS,
    CONTEXT_LENGTH,
    VOCAB_SIZE,
    config_of,
    from_open_clip,
    from_state_dict,
    load_clip,
    openai_name,
)
from miniclip_utils.transformer import QuickGELU

open_clip = pytest.importorskip("open_clip")

SENTENCES = ["a photo of a cat.", "Two dogs, a red ball & 7 crêpes!", "", "so many words " * 40]


def their_config(name: str) -> dict:
    return open_clip.get_model_config(name.replace("/", "-").replace("@336px", "-336") + "-quickgelu")


def random_open_clip(config: dict, layers: int | None = None) -> torch.nn.Module:
    """An open_clip model in which no two tensors are alike: fresh biases are all 0 and fresh gains all 1."""
    if layers:
        config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = layers
    model = open_clip.CLIP(**config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.logit_scale.fill_(4.6052)  # 100, as OpenAI's models have it
    return model


def assert_same_answers(ours: MiniCLIP, theirs: torch.nn.Module) -> None:
    tokens = open_clip.tokenize(SENTENCES)
    images = torch.randn(2, 3, ours.config.image_size, ours.config.image_size)
    with torch.inference_mode():
        image_features, text_features, scale = theirs(images, tokens)  # L2-normalised
        torch.testing.assert_close(F.normalize(ours.encode_image(images), dim=-1), image_features, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(F.normalize(ours.encode_text(tokens), dim=-1), text_features, rtol=1e-5, atol=1e-5)
        logits_per_image, logits_per_text = ours(images, tokens)
        cosines = image_features @ text_features.T
        torch.testing.assert_close(logits_per_image / scale, cosines, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(logits_per_text / scale, cosines.T, rtol=1e-5, atol=1e-5)
        assert cosines.std() > 1e-3  # the sentences and images do differ


@pytest.mark.parametrize("name, layers", [("ViT-B/32", None), ("ViT-B/16", 3), ("ViT-L/14", 2), ("ViT-L/14@336px", 1)])
def test_same_answers_as_open_clip(name, layers):
    """ViT-B/32 in full, the larger ones with their first blocks only: all blocks of a tower are alike."""
    theirs = random_open_clip(their_config(name), layers)
    ours = from_open_clip(theirs)
    short = {} if layers is None else {"vit_layers": layers, "text_layers": layers}
    assert ours.config == replace(CONFIGS[name], **short)
    assert_same_answers(ours, theirs)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_of_the_full_models_has_its_place(name):
    with torch.device("meta"):
        ours = MiniCLIP(CONFIGS[name], VOCAB_SIZE, CONTEXT_LENGTH).state_dict()
        theirs = open_clip.CLIP(**their_config(name)).state_dict()
    shapes = {openai_name(key): tensor.shape for key, tensor in ours.items()}
    for key in ("visual.proj", "text_projection"):
        shapes[key] = shapes[key][::-1]
    assert shapes == {key: tensor.shape for key, tensor in theirs.items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes_are_read_off_the_shapes(name):
    with torch.device("meta"):
        theirs = open_clip.CLIP(**their_config(name)).state_dict()
    assert config_of(theirs) == CONFIGS[name]


@pytest.fixture(scope="module")
def small():
    """(an open_clip model of one block in each tower, the config of its twin)"""
    theirs = random_open_clip(their_config("ViT-B/32"), layers=1)
    return theirs, replace(CONFIGS["ViT-B/32"], vit_layers=1, text_layers=1)


def test_plain_gelu_is_kept_apart_from_quick_gelu():
    theirs = random_open_clip(open_clip.get_model_config("ViT-B-32"), layers=1)
    ours = from_open_clip(theirs)
    assert not ours.config.quick_gelu
    assert_same_answers(ours, theirs)
    other = from_state_dict(theirs.state_dict(), replace(ours.config, quick_gelu=True))
    with pytest.raises(AssertionError):
        assert_same_answers(other, theirs)


def test_quick_gelu_is_openai_s_and_near_gelu():
    x = torch.linspace(-6, 6, 200)
    torch.testing.assert_close(QuickGELU()(x), open_clip.transformer.QuickGELU()(x))
    assert 0.01 < (QuickGELU()(x) - F.gelu(x)).abs().max() < 0.03


def test_half_precision_and_the_facts_in_openai_s_files(small):
    theirs, config = small
    tensors = {name: tensor.half() for name, tensor in theirs.state_dict().items()}
    facts = {"input_resolution": torch.tensor(224), "context_length": torch.tensor(77), "vocab_size": torch.tensor(49408)}
    ours = from_state_dict(tensors | facts, config)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32} and not ours.training
    torch.testing.assert_close(ours.image_projection.weight, tensors["visual.proj"].float().T, rtol=0, atol=0)


def test_nothing_is_shared_with_the_open_clip_model(small):
    theirs, _ = small
    ours = from_open_clip(theirs)
    their_memory = {parameter.data_ptr() for parameter in theirs.parameters()}
    assert not their_memory & {parameter.data_ptr() for parameter in ours.parameters()}


@pytest.mark.parametrize("key", ["visual.ln_pre.bias", "transformer.resblocks.0.attn.in_proj_weight", "logit_scale"])
def test_a_missing_an_unknown_and_a_misshapen_tensor_are_named(small, key):
    theirs, config = small
    tensors = theirs.state_dict()
    missing = {name: tensor for name, tensor in tensors.items() if name != key}
    with pytest.raises(UserError, match=f"lacks '{key}'"):
        from_state_dict(missing, config)
    with pytest.raises(UserError, match=f"has '{key}.twin'"):
        from_state_dict(tensors | {f"{key}.twin": tensors[key]}, config)
    with pytest.raises(UserError, match=rf"has '{key}' in shape \(3, 5, 7\), and the config wants"):
        from_state_dict(tensors | {key: torch.zeros(3, 5, 7)}, config)


def test_a_deeper_model_is_refused(small):
    theirs, config = small
    with pytest.raises(UserError, match="resblocks.1"):
        from_state_dict(theirs.state_dict(), replace(config, vit_layers=2))


def other_models():
    config = open_clip.get_model_config("RN50")
    yield pytest.param(lambda: open_clip.CLIP(**config), id="ResNet")
    mean = their_config("ViT-B/32")
    mean["vision_cfg"] |= {"layers": 1, "pool_type": "avg"}
    yield pytest.param(lambda: open_clip.CLIP(**mean), id="mean over patches")
    sees_all = their_config("ViT-B/32")
    sees_all["text_cfg"] |= {"layers": 1, "no_causal_mask": True}
    yield pytest.param(lambda: open_clip.CLIP(**sees_all), id="no causal mask")
    last = their_config("ViT-B/32")
    last["text_cfg"] |= {"layers": 1, "pool_type": "last"}
    yield pytest.param(lambda: open_clip.CLIP(**last), id="last token")
    yield pytest.param(lambda: torch.nn.Linear(2, 2), id="no CLIP")


@pytest.mark.parametrize("build", list(other_models()))
def test_another_architecture_is_refused(build):
    with torch.device("meta"), pytest.raises(UserError, match="not built like"):
        from_open_clip(build())


def test_weights_from_a_file(small, tmp_path, monkeypatch):
    theirs, config = small
    monkeypatch.setitem(CONFIGS, "ViT-B/32", config)
    path = tmp_path / "clip.safetensors"
    safetensors.torch.save_file(theirs.state_dict(), path)
    assert_same_answers(load_clip("ViT-B/32", path), theirs)


def test_weights_by_name_come_through_open_clip(small, tmp_path, monkeypatch):
    """Its download is replaced, since the tests run without internet; what is asked of it is open_clip's own entry."""
    theirs, config = small
    monkeypatch.setitem(CONFIGS, "ViT-L/14@336px", config)
    path = tmp_path / "clip.safetensors"
    safetensors.torch.save_file(theirs.state_dict(), path)
    asked = []
    monkeypatch.setattr(open_clip, "download_pretrained", lambda entry: asked.append(entry) or str(path))
    assert_same_answers(load_clip("ViT-L/14@336px"), theirs)
    assert asked == [open_clip.get_pretrained_cfg("ViT-L-14-336", "openai")]
    assert asked[0]["hf_hub"].startswith("timm/")  # where they lie as safetensors, not as a pickle


def test_without_a_download_only_the_cache_is_looked_at(small, tmp_path, monkeypatch):
    theirs, config = small
    monkeypatch.setitem(CONFIGS, "ViT-B/32", config)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(open_clip, "download_pretrained", lambda entry: pytest.fail("a download"))
    with pytest.raises(UserError, match="not in the cache"):
        load_clip("ViT-B/32", download=False)
    repository = tmp_path / "models--timm--vit_base_patch32_clip_224.openai"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    safetensors.torch.save_file(theirs.state_dict(), repository / "snapshots" / "abc" / "open_clip_model.safetensors")
    assert_same_answers(load_clip("ViT-B/32", download=False), theirs)


def test_no_internet_is_one_calm_sentence(monkeypatch):
    def fail(entry):
        raise FileNotFoundError("Failed to download file\nand more lines")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    with pytest.raises(UserError, match="could not be downloaded") as error:
        load_clip("ViT-B/32")
    assert "\n" not in str(error.value)


def test_wrong_names_and_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="'ViT-B-32' here: choose one of ViT-B/32"):
        load_clip("ViT-B-32")
    with pytest.raises(UserError, match="there is no file"):
        load_clip("ViT-B/32", tmp_path / "none.safetensors")
    pickle = tmp_path / "clip.pt"
    torch.save({"logit_scale": torch.tensor(4.6)}, pickle)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (pickle, "~/clip.pt"):
        with pytest.raises(UserError, match="not a whole safetensors file"):
            load_clip("ViT-B/32", path)


def test_sizes_are_those_that_openai_published():
    """Parameters of openai/CLIP's models, as open_clip's model profile lists them."""
    published = {"ViT-B/32": 151_277_313, "ViT-B/16": 149_620_737, "ViT-L/14": 427_616_513, "ViT-L/14@336px": 427_944_193}
    for name, config in CONFIGS.items():
        with torch.device("meta"):
            model = MiniCLIP(config, VOCAB_SIZE, CONTEXT_LENGTH)
        assert sum(parameter.numel() for parameter in model.parameters()) == published[name]


def published(name: str) -> list[dict[str, str]]:
    lines = (files("miniclip_utils.classroom") / "logs" / name).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ") and "commit" in " ".join(line for line in lines if line.startswith("# "))
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def test_published_results_are_whole_and_those_of_models_that_open_clip_knows():
    rows = published("published.csv")
    assert len(rows) == len({(row["model"], row["weights"]) for row in rows}) == 26
    for row in rows:
        assert (row["model"].lower(), row["weights"]) in {(name.lower(), tag) for name, tag in open_clip.list_pretrained()}
        assert row["data"] and 0.01 <= float(row["pairs_seen"]) <= 40
        assert 0.03 < float(row["imagenet"]) < float(row["cifar10"]) < 1
        assert 0.1 < float(row["average_38"]) < float(row["cifar10"]) and 0.1 < float(row["cifar100"]) < 1
    sizes = {row["model"].removesuffix("-quickgelu"): float(row["parameters"]) for row in rows}
    assert [sizes[name] for name in ("ViT-B-32", "ViT-B-16", "ViT-L-14")] == [151.28, 149.62, 427.62]  # millions


def test_published_cosines_put_each_picture_s_own_sentence_first():
    rows = published("published_cosines.csv")
    pictures = list(rows[0])[1:]
    cosines = torch.tensor([[float(row[picture]) for picture in pictures] for row in rows])
    assert cosines.shape == (6, 5) and cosines.argmax(dim=0).tolist() == [0, 1, 2, 3, 4]
