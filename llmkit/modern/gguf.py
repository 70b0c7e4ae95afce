"""A .gguf file, in which small computers get a model: numbers, texts and rounded weights in one.

The library `gguf` reads it (SmolLM2's file, 93 MB, in some seconds); here is what becomes of it.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmkit.bpe.files import unspell, unspell_merges
from llmkit.bpe.tokenizer import BPETokenizer
from llmkit.files import as_path, reading
from llmkit.modern.folders import from_theirs
from llmkit.modern.model import Modern, ModernConfig

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


def library() -> tuple[Any, Any]:
    """Its reader of files, and what undoes its rounding; ImportError where it is missing."""
    try:
        from gguf import GGUFReader
        from gguf.quants import dequantize
    except ImportError:
        raise ImportError(".gguf files are read by gguf: pip install 'llmkit[fetch]'") from None
    return GGUFReader, dequantize


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a .gguf file says of its model, by name, and its weights in float32.

    FileNotFoundError for no file; ValueError for one of another kind, cut short, or with weights
    rounded in a way that `gguf` cannot undo; ImportError where that library is missing.
    """
    path = as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    GGUFReader, dequantize = library()
    with reading(path, "get it again"):
        file = GGUFReader(path)
        fields = {name: field.contents() for name, field in file.fields.items()}
        return fields, {
            part.name: torch.from_numpy(dequantize(part.data, part.tensor_type).copy())
            for part in file.tensors
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
