import pytest
import torch

from miniclip_utils import UserError
from miniclip_utils.prompts import HELD_OUT_TEMPLATES, TEMPLATES, fill
from miniclip_utils.tokenizer import EOS, PAD, SOS, UNK, WordTokenizer


@pytest.fixture
def tokenizer():
    return WordTokenizer.from_captions(["a photo of a dog.", "a cat"])


def test_special_tokens_are_all_different():
    assert len({PAD, UNK, SOS, EOS}) == 4


def test_layout(tokenizer):
    tokens = tokenizer(["A cat", "a photo of a dog."])
    assert tokens.dtype == torch.int64 and tokens.shape == (2, 8)
    assert tokens[0, 0] == SOS and tokens[0, 3] == EOS and (tokens[0, 4:] == PAD).all()
    assert tokenizer.decode(tokens[1]) == "[SOS] a photo of a dog . [EOS]"


def test_case_and_spaces_do_not_matter(tokenizer):
    assert torch.equal(tokenizer("a cat"), tokenizer("  A   CAT "))


def test_unknown_words_and_emoji_are_marked_and_reported(tokenizer):
    assert (tokenizer("a zebra 🦓") == UNK).sum() == 2
    assert tokenizer.unknown_words(["a zebra 🦓", "zebra dog"]) == ["zebra", "🦓"]


def test_empty_text_is_two_tokens(tokenizer):
    assert tokenizer("")[0, :3].tolist() == [SOS, EOS, PAD]


def test_words_named_like_special_tokens_are_ordinary_words(tokenizer):
    assert tokenizer("[PAD]")[0, 1:4].tolist() == [UNK, UNK, UNK]


def test_too_long_text_is_refused_by_name(tokenizer):
    with pytest.raises(UserError, match="'a a a a a a a' has 7 words .* at most 6"):
        tokenizer("a a a a a a a")


def test_vocabulary_round_trip(tokenizer):
    again = WordTokenizer(tokenizer.vocabulary, tokenizer.context_length)
    assert torch.equal(again("a photo of a cat."), tokenizer("a photo of a cat."))
    assert len(again) == 4 + 6


def test_a_model_can_read_the_held_out_templates():
    trained = WordTokenizer.from_captions(fill(template, ["cat"])[0] for template in TEMPLATES)
    for template in HELD_OUT_TEMPLATES:
        assert template not in TEMPLATES
        assert trained.unknown_words(fill(template, ["cat"])) == []
        assert trained(fill(template, ["cat"])).shape == (1, trained.context_length)
