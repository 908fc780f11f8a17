"""Words to numbers: a tokenizer small enough to print."""

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .errors import UserError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[SOS]", "[EOS]")
PAD, UNK, SOS, EOS = range(len(SPECIAL_TOKENS))


def split_words(text: str) -> list[str]:
    """Lower-case words and single punctuation marks: "A dog." → ["a", "dog", "."]."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


class WordTokenizer:
    """One number for each known word.

    A caption becomes `[SOS] word … word [EOS] [PAD] …`, always `context_length` numbers. A word outside the
    vocabulary becomes [UNK], which is not [PAD]: padding is hidden from the text tower, an unknown word is not.

    Args:
        vocabulary: the known words, in the order of their numbers after the special tokens.
        context_length: tokens in a caption, [SOS] and [EOS] counted.
    """

    def __init__(self, vocabulary: Sequence[str], context_length: int):
        self.vocabulary = tuple(vocabulary)
        self.context_length = context_length
        self._number = {word: number for number, word in enumerate(SPECIAL_TOKENS + self.vocabulary)}

    @classmethod
    def from_captions(cls, captions: Iterable[str]) -> "WordTokenizer":
        """Knows each word of the captions, and is as long as the longest of them."""
        split = [split_words(caption) for caption in captions]
        vocabulary = sorted({word for words in split for word in words})
        return cls(vocabulary, context_length=max(map(len, split), default=0) + 2)

    def __len__(self) -> int:
        return len(self._number)

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Token numbers of each text, int64 (N, context_length).

        Raises:
            UserError: a text is longer than `context_length` allows.
        """
        texts = [texts] if isinstance(texts, str) else texts
        tokens = torch.full((len(texts), self.context_length), PAD)
        for row, text in zip(tokens, texts, strict=True):
            numbers = [SOS, *(self._number.get(word, UNK) for word in split_words(text)), EOS]
            if len(numbers) > self.context_length:
                raise UserError(
                    f"the text {text!r} has {len(numbers) - 2} words and punctuation marks, "
                    f"and this model reads at most {self.context_length - 2}: shorten it"
                )
            row[: len(numbers)] = torch.tensor(numbers)
        return tokens

    def decode(self, tokens: Tensor) -> str:
        """The words of one row of tokens (L,), special tokens shown, padding left out."""
        names = SPECIAL_TOKENS + self.vocabulary
        return " ".join(names[number] for number in tokens.tolist() if number != PAD)

    def unknown_words(self, texts: Iterable[str]) -> list[str]:
        """The words of the texts that the tokenizer does not know, in the order of their first use."""
        words = (word for text in texts for word in split_words(text))
        return list(dict.fromkeys(word for word in words if word not in self._number))
