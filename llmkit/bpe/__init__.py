"""Subword tokens (notebook 09): byte-level byte-pair encoding, as GPT-2 and most models since.

`tokenizer` encodes and decodes, `training` learns the merges, `files` reads and writes the files in
which others keep a vocabulary, `widgets` shows the merges at work. Characters and words are the
core's: `llmkit.tokenizer`.
"""

from llmkit.bpe.tokenizer import BPETokenizer

__all__ = ["BPETokenizer"]
