"""Attention and the encoder block against torch.nn's own."""

import pytest
import torch
from torch import nn

from miniclip_utils.transformer import EncoderBlock, MultiHeadAttention

N, L, WIDTH, HEADS = 3, 7, 24, 4


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    theirs.in_proj_weight.data.copy_(ours.qkv.weight)
    theirs.in_proj_bias.data.copy_(ours.qkv.bias)
    theirs.out_proj.load_state_dict(ours.out.state_dict())


@pytest.fixture
def padding():
    return torch.arange(L)[None, :] < torch.tensor([7, 4, 1])[:, None]  # (N, L), True for words


def test_attention_equals_torch(padding):
    ours, theirs = MultiHeadAttention(WIDTH, HEADS).double(), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    copy_attention(ours, theirs)
    x = torch.randn(N, L, WIDTH, dtype=torch.float64)
    expected, _ = theirs(x, x, x, key_padding_mask=~padding)
    torch.testing.assert_close(ours(x, padding[:, None, None, :]), expected)


def test_causal_attention_equals_torch():
    ours, theirs = MultiHeadAttention(WIDTH, HEADS).double(), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    copy_attention(ours, theirs)
    x = torch.randn(N, L, WIDTH, dtype=torch.float64)
    causal = torch.ones(L, L, dtype=torch.bool).tril()
    expected, _ = theirs(x, x, x, attn_mask=~causal)
    torch.testing.assert_close(ours(x, causal), expected)


def test_encoder_block_equals_torch(padding):
    ours = EncoderBlock(WIDTH, HEADS).double()
    theirs = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, dropout=0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    copy_attention(ours.attention, theirs.self_attn)
    theirs.linear1.load_state_dict(ours.mlp[0].state_dict())
    theirs.linear2.load_state_dict(ours.mlp[2].state_dict())
    for norm in (ours.norm_1, ours.norm_2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    theirs.norm1.load_state_dict(ours.norm_1.state_dict())
    theirs.norm2.load_state_dict(ours.norm_2.state_dict())
    x = torch.randn(N, L, WIDTH, dtype=torch.float64)
    expected = theirs(x, src_key_padding_mask=~padding)
    torch.testing.assert_close(ours(x, padding[:, None, None, :]), expected)


def test_width_must_divide_by_heads():
    with pytest.raises(ValueError, match="multiple"):
        MultiHeadAttention(10, 3)
