"""The files of a folder as transformers saves a model, whatever the model: weights in one file or
in several with an index, tokenizer.json, and small files of JSON.

Which weights there must be, and what config.json says of them, is known to ``gpt2``, and to the
package ``modern``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from llmkit.arguments import ModelConfig, check_type, shown
from llmkit.bpe.files import END_OF_TEXT, GPT2_FILES
from llmkit.bpe.tokenizer import BPETokenizer
from llmkit.files import read_json, replacing

Config = TypeVar("Config")
SUFFIX = ".safetensors"
INDEX = "model.safetensors.index.json"
PADDING = 1024  # a model has less than so many rows beyond its tokens: more are other tokens


def read_config(folder: Path, understood: Callable[[dict[str, Any]], Config], what: str) -> Config:
    """What ``understood`` makes of a folder's config.json; what: the model it is to be of."""
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} has no config.json: choose the folder of {what}")
    fields = read_json(path)
    if str(fields.get("format")).startswith("llmkit"):
        raise ValueError(f"{folder} is llmkit's own checkpoint: use llmkit.checkpoint")
    try:
        return understood(fields)
    except ValueError as error:
        raise ValueError(f"{path} is not of {what} that llmkit knows: {error}") from None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of model.safetensors, or of the files that its index lists."""
    files = ["model.safetensors"]
    index = folder / INDEX
    if not (folder / files[0]).exists() and index.exists():
        files = _listed(index)
    if missing := [file for file in files if not (folder / file).is_file()]:
        pickled = any(folder.glob("pytorch_model*.bin*"))  # which could run code when read
        advice = "save the model with transformers' save_pretrained" if pickled else "get it"
        raise FileNotFoundError(f"{folder} has no {', '.join(missing)}: {advice}")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors.update(load_file(folder / file))
        except SafetensorError:
            raise ValueError(f"{file} is damaged or cut short: get it again") from None
    return tensors


def _listed(index: Path) -> list[str]:
    """The files that an index lists, which must be beside it."""
    listed = read_json(index).get("weight_map")
    files = list(listed.values()) if isinstance(listed, dict) else []
    for file in files or [None]:
        if not isinstance(file, str) or Path(file).name != file or Path(file).suffix != SUFFIX:
            raise ValueError(
                f"{index} must list {SUFFIX} files of its own folder, not {shown(file)}"
            )
    return sorted(set(files))


def read_tokenizer(folder: Path) -> BPETokenizer | None:
    """The tokenizer of a folder, None where it has none."""
    if (folder / "tokenizer.json").exists():
        return BPETokenizer.from_huggingface(folder / "tokenizer.json")
    if any((folder / file).exists() for pair in GPT2_FILES for file in pair):
        return BPETokenizer.gpt2(folder)
    return None


def check_vocabulary(tokenizer: BPETokenizer | None, config: ModelConfig) -> None:
    """TypeError for another class of tokenizer, ValueError for one of another model."""
    check_type("the tokenizer", tokenizer, BPETokenizer, wanted="a BPETokenizer", optional=True)
    if tokenizer and not 0 <= config.vocab_size - tokenizer.vocab_size < PADDING:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens and the model "
            f"{config.vocab_size:,}: use the tokenizer that the model was trained with"
        )


def write_tokenizer(
    folder: Path, tokenizer: BPETokenizer, config: ModelConfig, end: int | None
) -> None:
    """tokenizer.json, and what ``AutoTokenizer`` reads beside it; end: the id that ends a text."""
    with replacing(folder / "tokenizer.json") as fresh:
        tokenizer.save_huggingface(fresh)
    about: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.block_size,
    }
    if end is not None:
        about.update(bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)
    write_json(folder / "tokenizer_config.json", about)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """An object as JSON, in place of the file that is there."""
    with replacing(path) as fresh:
        fresh.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def end_of_text(tokenizer: BPETokenizer | None, config: ModelConfig) -> int | None:
    """The id that ends a text: the tokenizer's, or that of GPT-2's vocabulary."""
    if tokenizer is None:
        return 50256 if config.vocab_size == 50257 else None
    return tokenizer.special_tokens.get(END_OF_TEXT)
