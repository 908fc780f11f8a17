"""The training loop against the same steps written out by hand, in plain PyTorch."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from miniclip_utils import MiniCLIP, loop
from miniclip_utils.losses import multi_positive_loss
from miniclip_utils.model import PRESETS
from miniclip_utils.optimizers import make_optimizers
from miniclip_utils.tokenizer import WordTokenizer

from .conftest import TINY

NAMES, TEMPLATES = ["red", "blue", "green"], ["a photo of a {}.", "this is a {}."]
TOKENIZER = WordTokenizer.from_captions(template.format(name) for template in TEMPLATES for name in NAMES)
TOKENS = torch.stack([TOKENIZER([template.format(name) for name in NAMES]) for template in TEMPLATES], dim=1)


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """As on hardware without bfloat16, so that the numbers are the same everywhere."""
    monkeypatch.setattr(loop, "has_fast_bfloat16", lambda device: False)


@pytest.fixture
def model():
    return MiniCLIP(TINY, len(TOKENIZER), TOKENIZER.context_length)


def batch(n: int = 6, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 3, size, size), torch.arange(n) % 3


def loss_by_hand(model: MiniCLIP, images: torch.Tensor, labels: torch.Tensor, tokens: torch.Tensor, smoothing: float):
    """Every caption encoded by itself; cross-entropies with their targets, entry by entry. Tokens (N, L)."""
    image, text = model.encode_image(images), model.encode_text(tokens)
    image, text = image / image.norm(dim=1, keepdim=True), text / text.norm(dim=1, keepdim=True)
    logits = torch.exp(model.logit_scale) * image @ text.T
    n, total = len(labels), 0.0
    for scores in (logits, logits.T):
        for row in range(n):
            copies = sum(labels == labels[row])
            for column in range(n):
                target = (1 - smoothing) * float(labels[row] == labels[column]) / copies + smoothing / n
                total = total - target * (scores[row, column] - scores[row].logsumexp(dim=0)) / (2 * n)
    return total


def test_captions_are_tokenised_class_by_class_in_each_template():
    tokens = loop.tokenize_captions(TOKENIZER, NAMES, TEMPLATES)
    assert tokens.shape == (3, 2, TOKENIZER.context_length)
    assert TOKENIZER.decode(tokens[1, 0]) == "[SOS] a photo of a blue . [EOS]"
    assert TOKENIZER.decode(tokens[2, 1]) == "[SOS] this is a green . [EOS]"


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_of_a_batch_and_its_gradients_by_hand(model, smoothing):
    images, labels = batch()
    by_hand = copy.deepcopy(model)
    ours = loop.batch_loss(model, images, labels, TOKENS[:, :1], smoothing)
    expected = loss_by_hand(by_hand, images, labels, TOKENS[labels, 0], smoothing)
    torch.testing.assert_close(ours, expected)
    ours.backward()
    expected.backward()
    for (name, one), other in zip(model.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_each_image_gets_its_own_name_in_a_random_template(model, monkeypatch):
    """Read off the features that the loss is given: that of the image's class, in the one or the other wording."""
    given = []
    monkeypatch.setattr(loop, "multi_positive_loss", lambda image, text, *rest: given.append(text) or text.sum())
    images, labels = batch(60)
    with torch.no_grad():
        loop.batch_loss(model, images, labels, TOKENS)
        each = F.normalize(model.encode_text(TOKENS.flatten(0, 1)), dim=1).view(3, 2, -1)
    choices = [
        [torch.allclose(text, each[label, wording], atol=1e-5) for wording in (0, 1)]
        for text, label in zip(given[0], labels, strict=True)
    ]
    assert all(sum(choice) == 1 for choice in choices)
    assert 15 <= sum(choice[0] for choice in choices) <= 45


def test_each_distinct_caption_is_encoded_once(model, monkeypatch):
    rows = []
    monkeypatch.setattr(
        model.text_encoder, "forward", lambda tokens: rows.append(len(tokens)) or torch.ones(len(tokens), 16)
    )
    loop.batch_loss(model, *batch(50), TOKENS[:, :1])
    assert rows == [3]


def test_text_gradient_is_that_of_encoding_every_caption(model):
    """Encoding distinct captions once and gathering must not change what the text tower learns."""
    model.double()
    images, labels = torch.randn(20, 3, 16, 16, dtype=torch.float64), torch.arange(20) % 2
    gradients = []
    for loss in (
        lambda: loop.batch_loss(model, images, labels, TOKENS[:, :1]),
        lambda: multi_positive_loss(
            F.normalize(model.encode_image(images).float(), dim=-1),
            F.normalize(model.encode_text(TOKENS[labels, 0]).float(), dim=-1),
            model.logit_scale.exp(),
            labels,
        ),
    ):
        model.zero_grad()
        loss().backward()
        gradients.append(model.text_encoder.token_embedding.weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fast, dtype", [(True, torch.bfloat16), (False, torch.float32)])
def test_towers_may_compute_in_bfloat16_and_the_loss_never_does(model, monkeypatch, fast, dtype):
    monkeypatch.setattr(loop, "has_fast_bfloat16", lambda device: fast)
    towers, losses = [], []
    for tower in (model.image_projection, model.text_projection):
        tower.register_forward_hook(lambda module, args, output: towers.append(output.dtype))
    right = loop.multi_positive_loss
    monkeypatch.setattr(loop, "multi_positive_loss", lambda *args: losses.extend(a.dtype for a in args[:3]) or right(*args))
    loss = loop.batch_loss(model, *batch(), TOKENS)
    assert towers == [dtype] * 2 and losses == [torch.float32] * 3 and loss.dtype == torch.float32


def test_features_and_labels_of_all_processes_are_compared(model, monkeypatch):
    """With a second process that has the same batch, each row has twice as many columns, and twice as many copies."""
    monkeypatch.setattr(loop, "gather", lambda rows: torch.cat([rows, rows]))
    images, labels = batch()
    ours = loop.batch_loss(model, images, labels, TOKENS[:, :1])
    expected = loss_by_hand(model, images.repeat(2, 1, 1, 1), labels.repeat(2), TOKENS[labels.repeat(2), 0], 0.0)
    torch.testing.assert_close(ours, expected)
    _, floor = next(loop.train_epoch(model, [(images, labels)], [], TOKENS[:, :1], loop.Recipe(epochs=1), 0))
    assert floor.item() == pytest.approx(math.log(4))  # twelve pairs say three different things


def run_epoch(model: MiniCLIP, loader: list, recipe: loop.Recipe, epoch: int = 0) -> list[tuple[float, float]]:
    optimizers = make_optimizers(model, recipe.learning_rate, recipe.convolution_learning_rate, recipe.weight_decay)
    steps = loop.train_epoch(model, loader, optimizers, TOKENS[:, :1], recipe, epoch)
    return [(loss.item(), floor.item()) for loss, floor in steps]


RECIPE = loop.Recipe(
    epochs=2, learning_rate=3e-3, convolution_learning_rate=0.05, weight_decay=0.1, warmup=0.4, label_smoothing=0.1
)


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_is_the_loop_written_out(model, epoch):
    """Second epoch included: the rates go on where the first one left them. 0.4 · 6 steps, so 2, are for the warm-up."""
    loader = [batch() for _ in range(3)]
    by_hand = copy.deepcopy(model).train()
    steps = run_epoch(model.eval(), loader, RECIPE, epoch)

    convolutions = [p for p in by_hand.image_encoder.stages.parameters() if p.ndim == 4]
    others = [p for p in by_hand.parameters() if all(p is not c for c in convolutions)]
    matrices, vectors = [p for p in others if p.ndim >= 2], [p for p in others if p.ndim < 2]
    adamw = torch.optim.AdamW(
        [{"params": matrices}, {"params": vectors, "weight_decay": 0}], betas=(0.9, 0.95), weight_decay=0.1
    )
    muon = make_optimizers(by_hand, 1, 1, 0)[1]
    for index, (images, labels) in enumerate(loader):
        step = 3 * epoch + index
        factor = (step + 1) / 2 if step < 2 else (1 + math.cos(math.pi * (step - 2) / 4)) / 2
        for optimizer, peak in ((adamw, 3e-3), (muon, 0.05)):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.zero_grad()
        loss = loss_by_hand(by_hand, images, labels, TOKENS[labels, 0], 0.1)
        loss.backward()
        adamw.step()
        muon.step()
        assert steps[index][0] == pytest.approx(loss.item(), rel=1e-3)
    for name, tensor in by_hand.state_dict().items():  # BatchNorm's running statistics among them
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-2, atol=1e-3, msg=name)


def test_the_floor_beside_each_loss_is_the_entropy_of_its_targets(model):
    """Six pairs, three captions: each target has 0.9 / 2 on its two true pairs, and 0.1 / 6 everywhere."""
    ((_, floor),) = run_epoch(model, [batch()], RECIPE)
    true, other = 0.45 + 0.1 / 6, 0.1 / 6
    assert floor == pytest.approx(-2 * true * math.log(true) - 4 * other * math.log(other), rel=1e-5)


def test_it_waits_after_each_step(model):
    steps = loop.train_epoch(model, [batch(), batch()], make_optimizers(model, 1e-3, 0.1, 0.0), TOKENS, loop.Recipe(), 0)
    states = [copy.deepcopy(model.state_dict())]
    for loss, floor in steps:
        assert not loss.requires_grad and not floor.requires_grad
        states.append(copy.deepcopy(model.state_dict()))
    for before, after in zip(states, states[1:], strict=False):
        assert not torch.equal(before["text_projection.weight"], after["text_projection.weight"])
    assert len(states) == 3


def test_the_scale_is_capped_after_each_step(model):
    """The cap is 100; this scale starts above it, and one step of 0.001 could not bring it down."""
    model.logit_scale.data.fill_(math.log(200))
    run_epoch(model, [batch()], loop.Recipe(epochs=1, learning_rate=1e-3))
    assert model.logit_scale.exp().item() == pytest.approx(100)


def test_gradients_are_averaged_before_the_step(model, monkeypatch):
    """With gradients that the other process cancels, and without decay, nothing moves."""

    def cancelled(model):
        for parameter in model.parameters():
            parameter.grad.zero_()

    monkeypatch.setattr(loop, "average_gradients", cancelled)
    before = copy.deepcopy(dict(model.named_parameters()))
    steps = loop.train_epoch(model, [batch()], [torch.optim.SGD(model.parameters(), lr=1.0)], TOKENS, loop.Recipe(), 0)
    assert len(list(steps)) == 1
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_each_preset_has_a_recipe():
    assert loop.RECIPES.keys() == PRESETS.keys()


@pytest.mark.parametrize(
    "preset, pictures, epochs, batch_size",
    [
        ("small", 27, 100, 32),
        ("small", 285, 100, 32),
        ("small", 510, 100, 48),
        ("small", 950, 63, 80),
        ("small", 2_850, 21, 128),
        ("small", 20_000, 3, 128),  # the shapes
        ("medium", 3_000, 20, 288),
        ("medium", 50_000, 13, 1_000),  # CIFAR-10
    ],
)
def test_epochs_and_batches_follow_from_the_number_of_pictures(preset, pictures, epochs, batch_size):
    recipe = loop.recipe_for(preset, pictures)
    assert (recipe.epochs, recipe.batch_size) == (epochs, batch_size)
    assert recipe == replace(loop.RECIPES[preset], epochs=epochs, batch_size=batch_size)


@pytest.mark.parametrize("preset", loop.RECIPES)
def test_the_rule_has_no_jumps_and_ends_at_the_recipe(preset):
    recipes = [loop.recipe_for(preset, pictures) for pictures in range(2, 25_000)]
    for one, more in zip(recipes, recipes[1:], strict=False):
        assert 0 <= more.batch_size - one.batch_size <= 16 and 0 <= one.epochs - more.epochs <= 1
    seen = [pictures * recipe.epochs for pictures, recipe in enumerate(recipes, start=2)]
    assert all(58_000 < number < 62_000 for number in seen[600:3_000]) and max(seen[:3_000]) < 62_000
    assert all(recipe.batch_size % 2 == 0 and recipe.batch_size >= 32 for recipe in recipes)  # for two processes too
    assert recipes[-1] == loop.RECIPES[preset]


@pytest.mark.parametrize("pictures", [2, 300, 3_000, 50_000])
def test_a_run_from_another_one_is_shorter_and_gentler(pictures):
    whole, part = loop.recipe_for("medium", pictures), loop.recipe_for("medium", pictures, from_run=True)
    assert part.epochs == round(loop.SHARE_FROM * whole.epochs) >= 1
    assert part.learning_rate == loop.RATES_FROM * whole.learning_rate
    assert part.convolution_learning_rate == loop.RATES_FROM * whole.convolution_learning_rate
    rest = {"epochs": 1, "learning_rate": 1.0, "convolution_learning_rate": 1.0}
    assert replace(part, **rest) == replace(whole, **rest)
