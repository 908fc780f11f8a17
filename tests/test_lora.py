"""Low-rank layers, training some rows, and mixtures: against matrices multiplied by hand and against open_clip."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from miniclip_utils import MiniCLIP, ModelConfig
from miniclip_utils.lora import LoRALinear, add_lora, interpolate, merge_lora, merged_weight, train_rows
from miniclip_utils.openai import from_open_clip
from miniclip_utils.optimizers import make_optimizers

TOKENS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])


def small_clip(image_tower: str) -> MiniCLIP:
    sizes = dict(embed_dim=8, vit_width=16, vit_layers=2, vit_num_heads=2, text_width=16, text_layers=2, text_num_heads=2)
    model = MiniCLIP(ModelConfig(image_tower=image_tower, resnet_widths=(8, 8, 8), **sizes), vocab_size=9, context_length=4)
    return model.eval()


def lora_layers(model: nn.Module) -> list[LoRALinear]:
    return [module for module in model.modules() if isinstance(module, LoRALinear)]


def randomise(model: nn.Module) -> None:
    for layer in lora_layers(model):
        nn.init.normal_(layer.B)


def features(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model.encode_image(images), model.encode_text(TOKENS)])


def test_a_layer_computes_the_formula_of_the_paper():
    """W x + b + (alpha / rank) · B A x, one row after the other, in float64."""
    linear = nn.Linear(5, 7).double()
    layer = LoRALinear(linear, rank=3, alpha=6.0).double()
    nn.init.normal_(layer.B)
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    for row, got in zip(x.flatten(0, 1), layer(x).flatten(0, 1), strict=True):
        update = 6.0 / 3 * layer.B.mv(layer.A.mv(row))
        torch.testing.assert_close(got, linear.weight.mv(row) + linear.bias + update)
    torch.testing.assert_close(F.linear(x, merged_weight(layer), linear.bias), layer(x))


def test_a_fresh_layer_changes_no_output_and_b_has_the_first_gradient():
    linear, x = nn.Linear(5, 7), torch.randn(4, 5)
    layer = LoRALinear(linear, rank=2)
    assert torch.equal(layer(x), linear(x))
    layer(x).square().sum().backward()
    assert linear.weight.grad is None and linear.bias.grad is None
    assert layer.B.grad.abs().min() > 0 and not layer.A.grad.any()


@pytest.mark.parametrize("image_tower, attentions", [("vit", 4), ("resnet", 2)])
def test_each_attention_gets_two_layers_and_a_resnet_has_none_in_its_image_tower(image_tower, attentions):
    model = small_clip(image_tower)
    images = torch.randn(2, 3, 32, 32)
    before = features(model, images)
    new = add_lora(model, rank=3)
    assert torch.equal(features(model, images), before)
    assert len(lora_layers(model)) == 2 * attentions
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {id(parameter) for parameter in trained} == {id(parameter) for parameter in new}
    per_attention = 3 * (16 + 48) + 3 * (16 + 16)  # A and B of qkv, of out
    assert sum(parameter.numel() for parameter in new) == attentions * per_attention


def test_a_merged_model_gives_the_same_features_under_the_old_names():
    model = small_clip("vit")
    names, images = list(model.state_dict()), torch.randn(2, 3, 32, 32)
    start = features(model, images)
    add_lora(model, rank=3)
    randomise(model)
    changed = features(model, images)
    merge_lora(model)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(features(model, images), changed, rtol=1e-4, atol=1e-5)
    assert (changed - start).abs().max() > 0.1


def test_on_openais_architecture_it_is_open_clip_with_the_product_added_to_its_weights():
    """Without one of our layers: B A is written into open_clip's own attention weights."""
    open_clip = pytest.importorskip("open_clip")
    vision = dict(image_size=32, patch_size=8, width=64, layers=2, head_width=32)
    text = dict(vocab_size=20, context_length=6, width=64, layers=2, heads=2)
    theirs = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, quick_gelu=True).eval()
    reference = copy.deepcopy(theirs)
    with pytest.MonkeyPatch.context() as patch:  # the sizes of a model for a test
        patch.setattr("miniclip_utils.openai.VOCAB_SIZE", 20)
        patch.setattr("miniclip_utils.openai.CONTEXT_LENGTH", 6)
        ours = from_open_clip(theirs)
    add_lora(ours, rank=2, alpha=4.0)
    randomise(ours)
    sides = [
        (ours.image_encoder.blocks, reference.visual.transformer.resblocks),
        (ours.text_encoder.blocks, reference.transformer.resblocks),
    ]
    with torch.no_grad():
        for our_blocks, their_blocks in sides:
            for our_block, their_block in zip(our_blocks, their_blocks, strict=True):
                qkv, out = our_block.attention.qkv, our_block.attention.out
                their_block.attn.in_proj_weight += 2 * qkv.B @ qkv.A
                their_block.attn.out_proj.weight += 2 * out.B @ out.A
        images, tokens = torch.randn(3, 3, 32, 32), torch.tensor([[1, 5, 7, 19, 0, 0], [1, 4, 19, 0, 0, 0]])
        for _ in range(2):  # with the product beside the weight, then merged into it
            torch.testing.assert_close(ours.encode_image(images), reference.encode_image(images), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(ours.encode_text(tokens), reference.encode_text(tokens), rtol=1e-4, atol=1e-4)
            merge_lora(ours)
    assert not lora_layers(ours)


def test_training_some_rows_is_training_a_smaller_matrix():
    """Against a parameter that holds these rows alone, for several steps of AdamW; the others stay bit for bit."""
    embedding, rows = nn.Embedding(7, 4), [2, 6]
    start = embedding.weight.detach().clone()
    alone = nn.Parameter(start[rows].clone())
    embedding.requires_grad_(False)
    train_rows(embedding, rows)
    optimizers = [torch.optim.AdamW([p], lr=0.1, weight_decay=0.0) for p in (embedding.weight, alone)]
    tokens, target = torch.tensor([2, 6, 1, 2]), torch.randn(4, 4)
    for _ in range(5):
        whole = start.clone().index_put((torch.tensor(rows),), alone)
        for optimizer, vectors in zip(optimizers, (embedding(tokens), whole[tokens]), strict=True):
            optimizer.zero_grad()
            (vectors - target).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(embedding.weight[rows], alone)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(embedding.weight[others], start[others]) and not torch.equal(embedding.weight[rows], start[rows])


def test_a_mixture_lies_on_the_straight_line_and_both_ends_are_exact():
    start, end = (small_clip("resnet").state_dict() for _ in range(2))
    counts = {name for name, tensor in end.items() if not tensor.is_floating_point()}
    assert counts  # BatchNorm's
    for name in counts:
        end[name] += 5
    for share in (0.0, 0.25, 1.0):
        mixture = interpolate(start, end, share)
        assert mixture.keys() == start.keys()
        for name, tensor in mixture.items():
            wanted = end[name] if name in counts else start[name].double() * (1 - share) + end[name].double() * share
            torch.testing.assert_close(tensor.double(), wanted.double(), rtol=1e-6, atol=1e-7)
    small_clip("resnet").load_state_dict(mixture)


@pytest.mark.parametrize("image_tower", ["vit", "resnet"])
def test_the_optimizers_leave_out_what_is_frozen(image_tower):
    """Also the convolutions of a ResNet, which have an optimizer of their own: without a gradient it could not step."""
    model = small_clip(image_tower)
    new = add_lora(model, rank=2)
    optimizers = make_optimizers(model, 1e-2, 0.1, weight_decay=0.0)
    taken = [id(parameter) for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(taken) == sorted(map(id, new))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (model.encode_image(torch.randn(2, 3, 32, 32)).sum() + model.encode_text(TOKENS).sum()).backward()
    for optimizer in optimizers:
        optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, weights[name])}
    assert moved and all(name.endswith(".B") for name in moved)
