"""Token ids into text, piece by piece, as a reader may see it: no half characters, no stop strings.

A token of byte-level BPE may end within a character, and the first letters of a stop string may yet
become another word. Such text is held back until it is decided. The pieces joined are the text.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from llmkit.arguments import Tokenizer, check_each, check_type
from llmkit.bpe.files import END_OF_TEXT
from llmkit.tokenizer import CharTokenizer, VocabularyTokenizer


def end_of_text(tokenizer: Tokenizer) -> int | None:
    """The id that ends a text, and after which one begins; None where the tokenizer has none."""
    special: dict[str, int] = getattr(tokenizer, "special_tokens", {})
    return special.get(END_OF_TEXT)


class TextStream:
    """The text of one row of ids, handed out as it is decided.

    tokenizer: one of llmkit's, or another in which a token's text does not depend on its
    neighbours. stop: strings that end the text and are no part of it; of several that the same
    token completes, the one that starts first. `stopped` says that one has come.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()):
        check_type("tokenizer", tokenizer, Tokenizer)
        if not all(check_each("stop", stop, str)):
            raise ValueError("a stop string must have a character or more")
        self.tokenizer, self.stop, self.stopped = tokenizer, stop, False
        self._held = ""
        tokens = getattr(tokenizer, "tokens", None)
        self._bytes = tokens if tokens and isinstance(tokens[0], bytes) else None
        # `decode` checks its ids, which takes longer than a small model's share of a step.
        join = getattr(type(tokenizer), "join", None)
        self._texts = tokens if join in (CharTokenizer.join, VocabularyTokenizer.join) else None
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that another token decides, perhaps none."""
        if self._texts is not None:
            return self._release(self._texts[token])
        if self._bytes is None:
            return self._release(self.tokenizer.decode([token]))
        return self._release(self._utf8.decode(self._bytes[token]))

    def end(self) -> str:
        """What was held back, once no token follows. Half a character becomes U+FFFD."""
        out = self._release("" if self.stopped else self._utf8.decode(b"", final=True))
        out, self._held = out + self._held, ""
        return out

    def _release(self, new: str) -> str:
        """Add to what is held, and take from it all that no stop string can reach any more."""
        if self.stopped:
            return ""
        self._held += new
        found = [at for at in (self._held.find(s) for s in self.stop) if at >= 0]
        if found:
            self.stopped = True
            out, self._held = self._held[: min(found)], ""
            return out
        cut = len(self._held) - max((_overlap(self._held, s) for s in self.stop), default=0)
        out, self._held = self._held[:cut], self._held[cut:]
        return out


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of text are the beginning of stop, the most there can be."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)
