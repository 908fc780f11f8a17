import pytest
import torch
import torch.nn.functional as F
import torchvision

from miniclip_utils.image_encoder import ResidualBlock, ResNet, VisionTransformer, start_as_identity, whiten_stem
from miniclip_utils.text_encoder import TextTransformer
from miniclip_utils.tokenizer import EOS, PAD, SOS, WordTokenizer


@pytest.fixture(params=[None, EOS], ids=["cls", "eos"])
def text_tower(request):
    return TextTransformer(vocab_size=20, context_length=9, width=16, layers=3, num_heads=4, eos=request.param).eval()


def caption(*words: int, length: int = 9) -> torch.Tensor:
    row = [SOS, *words, EOS]
    return torch.tensor([row + [PAD] * (length - len(row))])


def test_padding_does_not_change_a_feature(text_tower):
    short = text_tower(caption(5, 6, 7, length=5))
    torch.testing.assert_close(text_tower(caption(5, 6, 7, length=9)), short)


def test_what_stands_at_the_padding_does_not_matter(text_tower):
    """Both towers must be blind to it: one by its mask, the other because it reads at [EOS]."""
    with torch.no_grad():
        before = text_tower(caption(5, 6))
        text_tower.token_embedding.weight[PAD] += 100
        torch.testing.assert_close(text_tower(caption(5, 6)), before)


def test_every_word_and_its_place_matter(text_tower):
    feature = text_tower(caption(5, 6, 7))
    for other in ((8, 6, 7), (5, 8, 7), (5, 6, 8), (6, 5, 7)):
        assert not torch.allclose(text_tower(caption(*other)), feature, atol=1e-6)


def test_texts_of_a_batch_do_not_mix(text_tower):
    batch = torch.cat([caption(5), caption(6, 7, 8), caption(9, 9, 9, 9, 9, 9, 9)])
    together = text_tower(batch)
    alone = torch.cat([text_tower(row[None]) for row in batch])
    torch.testing.assert_close(together, alone)


def test_eos_tower_reads_the_last_layer_at_the_first_eos():
    tower = TextTransformer(20, 9, 16, eos=EOS).eval()
    seen = {}
    tower.norm.register_forward_hook(lambda module, args, output: seen.update(x=output))
    batch = torch.cat([caption(5), caption(6, 7, 8)])
    features = tower(batch)
    torch.testing.assert_close(features, torch.stack([seen["x"][0, 2], seen["x"][1, 4]]))


def test_eos_tower_is_causal_before_eos():
    tower = TextTransformer(20, 9, 16, eos=EOS).eval()
    seen = []
    tower.norm.register_forward_hook(lambda module, args, output: seen.append(output))
    tower(caption(5, 6, 7))
    tower(caption(5, 6, 8))
    torch.testing.assert_close(seen[0][:, :3], seen[1][:, :3])


def test_the_number_of_eos_is_the_callers():
    """As in OpenAI's vocabulary, where [EOS] is the last number."""
    tower = TextTransformer(20, 9, 16, eos=19).eval()
    seen = []
    tower.norm.register_forward_hook(lambda module, args, output: seen.append(output))
    feature = tower(torch.tensor([[SOS, EOS, 7, 19, 19, 0]]))
    torch.testing.assert_close(feature, seen[0][:, 3])


def test_residual_block_equals_torchvision():
    ours = ResidualBlock(8, 8).eval()
    theirs = torchvision.models.resnet.BasicBlock(8, 8).eval()
    for own, other in (("conv_1", "conv1"), ("norm_1", "bn1"), ("conv_2", "conv2"), ("norm_2", "bn2")):
        getattr(theirs, other).load_state_dict(getattr(ours, own).state_dict())
    x = torch.randn(2, 8, 12, 12)
    torch.testing.assert_close(ours(x), theirs(x))


def test_pooling_block_by_its_definition():
    block = ResidualBlock(8, 16, pool=True).eval()
    x = torch.randn(2, 8, 12, 12)
    residual = F.max_pool2d(F.conv2d(x, block.conv_1.weight, padding=1), 2)
    residual = F.conv2d(block.norm_1(residual).relu(), block.conv_2.weight, padding=1)
    shortcut = F.conv2d(F.max_pool2d(x, 2), block.shortcut.weight)
    expected = (block.norm_2(residual) + shortcut).relu()
    assert expected.shape == (2, 16, 6, 6)
    torch.testing.assert_close(block(x), expected)


def test_blocks_begin_as_the_identity_and_have_no_shortcut():
    tower = ResNet(stem_width=4, widths=(4, 6, 6), blocks=(1, 2, 1)).eval()
    start_as_identity(tower)
    x = torch.randn(2, 4, 16, 16).relu()
    pooled = F.max_pool2d(x, 2)
    torch.testing.assert_close(tower.stages[0](x), pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tower.stages[1](pooled)[:, :4], F.max_pool2d(pooled, 2), rtol=1e-4, atol=1e-5)
    block = tower.stages[1][1]
    torch.nn.init.zeros_(block.conv_2.weight)
    assert block(torch.randn(2, 6, 8, 8)).count_nonzero() == 0
    assert not [name for name, _ in tower.named_parameters() if "shortcut" in name]


def test_vision_transformer_equals_torchvision():
    """The same tower but for CLIP's LayerNorm at the input, which torchvision's lacks."""
    ours = VisionTransformer(image_size=8, patch_size=4, width=16, layers=2, num_heads=2).eval()
    ours.norm_in = torch.nn.Identity()
    theirs = torchvision.models.VisionTransformer(8, 4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64).eval()
    theirs.heads = torch.nn.Identity()
    with torch.no_grad():
        theirs.conv_proj.weight.copy_(ours.patch_embedding.weight)
        theirs.conv_proj.bias.zero_()
        theirs.class_token.copy_(ours.class_token.view(1, 1, -1))
        theirs.encoder.pos_embedding.copy_(ours.positional_embedding[None])
        for own, other in zip(ours.blocks, theirs.encoder.layers, strict=True):
            other.ln_1.eps = other.ln_2.eps = own.norm_1.eps
            other.self_attention.in_proj_weight.copy_(own.attention.qkv.weight)
            other.self_attention.in_proj_bias.copy_(own.attention.qkv.bias)
            other.self_attention.out_proj.load_state_dict(own.attention.out.state_dict())
            other.mlp[0].load_state_dict(own.mlp[0].state_dict())
            other.mlp[3].load_state_dict(own.mlp[2].state_dict())
    theirs.encoder.ln.eps = ours.norm_out.eps
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [9, 16, 32, 50])
def test_resnet_takes_any_size(size):
    tower = ResNet(stem_width=4, widths=(8, 16, 24), blocks=(1, 2, 1))
    assert tower(torch.randn(2, 3, size, size)).shape == (2, 24) == (2, tower.width)


def test_whitened_stem_makes_patches_uncorrelated():
    torch.manual_seed(0)
    images = torch.randn(40, 3, 1, 1) + 0.3 * torch.randn(40, 3, 16, 16)  # pixels of an image are alike, as in photos
    tower = ResNet(stem_width=24, widths=(8,), blocks=(1,))
    whiten_stem(tower, images)
    values = tower.stem(images).permute(0, 2, 3, 1).flatten(0, 2)  # (N·places, 24)
    torch.testing.assert_close(values[:, 12:], -values[:, :12])
    torch.testing.assert_close(values[:, :12].T @ values[:, :12] / len(values), torch.eye(12), rtol=0, atol=0.02)
    # The first filter looks along the first principal direction, found here by another method.
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    first = torch.linalg.svd(patches, full_matrices=False).Vh[0]
    cosine = torch.cosine_similarity(tower.stem.weight[0].flatten(), first, dim=0)
    assert abs(cosine.item()) == pytest.approx(1, abs=1e-3)


def test_stem_stays_whitened_while_the_rest_learns():
    tower = ResNet(stem_width=8, widths=(8,), blocks=(1,))
    whiten_stem(tower, torch.rand(8, 3, 9, 9))
    tower(torch.rand(8, 3, 9, 9)).sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == ["stem.weight"]


def test_vision_transformer_refuses_a_torn_patch():
    with pytest.raises(ValueError, match="multiple"):
        VisionTransformer(image_size=30, patch_size=4, width=16, layers=1, num_heads=2)


def test_tokenizer_and_tower_fit():
    tokenizer = WordTokenizer.from_captions(["a photo of a cat."])
    tower = TextTransformer(len(tokenizer), tokenizer.context_length, width=16)
    assert tower(tokenizer(["a cat", "zebra"])).shape == (2, 16)
