"""A .gguf file, in which small computers get a model: numbers, texts and rounded weights in one.

Read are the three kinds of weights that the files of this course have: plain ones ("F32"), eight
bits and a step for each 32 ("Q8_0"), four bits, a step and a least value for each 32 ("Q4_1").
Written is nothing. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmkit.bpe.files import unspell, unspell_merges
from llmkit.bpe.tokenizer import BPETokenizer
from llmkit.files import read_bytes, reading
from llmkit.modern.folders import from_theirs
from llmkit.modern.model import Modern, ModernConfig

NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
TEXT, ARRAY = 8, 9
BLOCK = 32  # weights that are rounded together
Q8_0 = np.dtype([("step", "<f2"), ("q", "i1", BLOCK)])
Q4_1 = np.dtype([("step", "<f2"), ("least", "<f2"), ("q", "u1", BLOCK // 2)])
KINDS: dict[int, tuple[np.dtype[Any], int]] = {  # what is stored, for how many weights
    0: (np.dtype("<f4"), 1),
    3: (Q4_1, BLOCK),
    8: (Q8_0, BLOCK),
}
ORDINARY = 1  # a token of text, no special one
NAMES = {  # in a block: transformers' name
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


class _Reader:
    """The values at the head of a file, one after the other."""

    def __init__(self, content: bytes):
        self.content, self.place = content, 0

    def number(self, code: str) -> Any:
        return self.numbers(code)[0]

    def numbers(self, code: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{code}", self.content, self.place)
        self.place += struct.calcsize(f"<{code}")
        return found

    def text(self) -> str:
        size = self.number("Q")
        self.place += size
        return self.content[self.place - size : self.place].decode()

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind != ARRAY:
            return self.number(NUMBERS[kind])
        inner, count = self.number("I"), self.number("Q")
        if count > len(self.content):
            raise ValueError("a list is longer than the file")
        if inner in NUMBERS:
            return list(self.numbers(f"{count}{NUMBERS[inner]}"))
        return [self.value(inner) for _ in range(count)]


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a .gguf file says of its model, by name, and its weights in float32.

    FileNotFoundError for no file; ValueError for one of another kind, cut short, or with weights
    that are rounded in another way.
    """
    content = read_bytes(path)
    with reading(path, "get it again"):
        head = _Reader(content)
        if head.number("4s") != b"GGUF" or head.number("I") not in (2, 3):
            raise ValueError("this is no .gguf file of version 2 or 3")
        n_tensors, n_fields = head.number("Q"), head.number("Q")
        fields = {head.text(): head.value(head.number("I")) for _ in range(n_fields)}
        about = []
        for _ in range(n_tensors):
            name, dimensions = head.text(), head.number("I")
            shape = [head.number("Q") for _ in range(dimensions)][::-1]  # rows first
            about.append((name, shape, head.number("I"), head.number("Q")))
        align = fields.get("general.alignment", 32)
        data = memoryview(content)[math.ceil(head.place / align) * align :]
        return fields, {
            name: _weights(data[start:], shape, kind) for name, shape, kind, start in about
        }


def build(fields: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[Modern, BPETokenizer]:
    """What `read` found as a model in eval mode, and its tokenizer; ValueError for another
    architecture than "llama", and for weights or tokens that do not belong together."""
    if (kind := fields.get("general.architecture")) != "llama":
        raise ValueError(f"its architecture is {kind!r}: llmkit reads 'llama' alone")
    said = {
        name.removeprefix("llama."): value
        for name, value in fields.items()
        if name.startswith("llama.")
    }
    tokens = fields["tokenizer.ggml.tokens"]
    config = ModernConfig(
        vocab_size=len(tokens),
        block_size=said["context_length"],
        n_layer=said["block_count"],
        n_head=said["attention.head_count"],
        n_embd=said["embedding_length"],
        n_kv_head=said["attention.head_count_kv"],
        n_inner=said["feed_forward_length"],
        rope_base=said["rope.freq_base"],
        norm_eps=round(said["attention.layer_norm_rms_epsilon"], 9),  # from float32
        tie_weights="output.weight" not in tensors,
    )
    named = {_their_name(name): _turned(name, w, config) for name, w in tensors.items()}
    return from_theirs(named, config, "llama"), _tokenizer(fields)


def _weights(data: memoryview, shape: list[int], kind: int) -> Tensor:
    """The weights at the beginning of some bytes."""
    if kind not in KINDS:
        raise ValueError(f"it has weights of kind {kind}, where llmkit reads F32, Q8_0 and Q4_1")
    dtype, together = KINDS[kind]
    stored = np.frombuffer(data, dtype, math.prod(shape) // together)
    if kind == 0:
        return torch.from_numpy(stored.copy()).view(shape)
    step = stored["step"].astype(np.float32)[:, None]
    if dtype is Q8_0:
        found = stored["q"] * step
    else:  # a byte has weight i in its lower half, and weight i + 16 in the upper
        halves = np.concatenate([stored["q"] & 15, stored["q"] >> 4], axis=1)
        found = halves * step + stored["least"].astype(np.float32)[:, None]
    return torch.from_numpy(found).view(shape)


def _their_name(name: str) -> str:
    if name in OUTER:
        return OUTER[name]
    _, layer, part, end = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.{end}"


def _turned(name: str, weight: Tensor, config: ModernConfig) -> Tensor:
    """Queries and keys in the order of transformers: there rotary positions turn feature i with
    feature i + D/2, in a .gguf file with its neighbour."""
    heads = {"attn_q": config.n_head, "attn_k": config.n_kv_head}.get(name.split(".")[-2])
    if heads is None:
        return weight
    return weight.view(heads, config.head_size // 2, 2, -1).transpose(1, 2).reshape(weight.shape)


def _tokenizer(fields: dict[str, Any]) -> BPETokenizer:
    said = {name: fields[f"tokenizer.ggml.{name}"] for name in ("model", "pre", "tokens", "merges")}
    if (said["model"], said["pre"]) != ("gpt2", "smollm"):
        raise ValueError(f"its tokenizer is {said['pre']!r}: llmkit reads SmolLM's alone")
    ordinary = [kind == ORDINARY for kind in fields["tokenizer.ggml.token_type"]]
    found = list(zip(said["tokens"], ordinary, strict=True))
    return BPETokenizer(
        unspell_merges(said["merges"], "the merges"),
        [text for text, plain in found if not plain],
        [unspell(text) if plain else text.encode() for text, plain in found],
        digits=True,
    )
