"""Pretrained GPT-2, in and out: Hugging Face's hub and the folders that transformers writes.

    config.json          the shape
    model.safetensors    the weights (large ones in several files, with an index)
    tokenizer files      tokenizer.json, or vocab.json + merges.txt, or encoder.json + vocab.bpe

How the weights are named and turned is told in ``gpt2``. llmkit's own folders, which hold any model
and the state of its training, are ``checkpoint``'s.
"""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import shorten
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from llmkit.arguments import shown
from llmkit.bpe.files import END_OF_TEXT, GPT2_FILES
from llmkit.bpe.tokenizer import BPETokenizer
from llmkit.files import as_path, read_json, reading, replacing, unwritable
from llmkit.finetune.gpt2 import config_from_gpt2, config_to_gpt2, from_gpt2, to_gpt2
from llmkit.model import GPT, GPT2_SIZES, GPTConfig

SUFFIX = ".safetensors"
PADDING = 1024  # a model has less than so many rows beyond its tokens: more are other tokens
HUB_FILES = ("config.json", "model.safetensors", "vocab.json", "merges.txt")


def load_gpt2(name_or_folder: str | Path) -> tuple[GPT, BPETokenizer | None]:
    """A GPT-2 as our GPT, in eval mode, and its tokenizer, None where the folder has none.

    name_or_folder: "gpt2" (124M parameters), "gpt2-medium" (355M), "gpt2-large" (774M) or "gpt2-xl"
        (1.6B), which Hugging Face's hub sends once; or a folder as transformers saves it (write
        "./gpt2" if it is called that). The dropout is config.json's resid_pdrop.

    Raises ConnectionError where the hub is needed and cannot be reached, after 10 seconds without a
    word from it (or those of the environment variable HF_HUB_ETAG_TIMEOUT, the hub's own setting);
    FileNotFoundError for no such folder, or one that lacks a file; ValueError for another kind of
    model, for a weight that is missing, unknown, of another shape or not finite (it is named), for
    a damaged file, and for a tokenizer that does not belong to the model.

    A model may have more rows than the tokenizer has tokens, where someone padded 50,257 to a round
    50,304. What is beyond the tokenizer stands for nothing: it is left out, so that it is never
    drawn, and the model's vocab_size is the tokenizer's.
    """
    folder = as_path(name_or_folder, "name_or_folder")
    if name_or_folder in GPT2_SIZES:
        folder = _download(str(name_or_folder))
    elif not folder.is_dir():
        sizes = ", ".join(GPT2_SIZES)
        raise FileNotFoundError(f"there is no folder {folder}; by name there are {sizes}")
    with reading(folder):
        config, tokenizer = _read_config(folder), _read_tokenizer(folder)
        _check_vocabulary(tokenizer, config)
        tokens = tokenizer.vocab_size if tokenizer else None
        return from_gpt2(_read_weights(folder), config, tokens), tokenizer


def save_gpt2(model: GPT, folder: str | Path, tokenizer: BPETokenizer | None = None) -> Path:
    """Write a folder that ``AutoModelForCausalLM.from_pretrained`` loads, and with it any program
    that runs GPT-2; returns the folder.

    tokenizer: written beside the model, for ``AutoTokenizer``; the model may be padded, as
    `load_gpt2` tells. Without one, tokenizer files that are there already are left alone.

    Raises ValueError for a model that is not GPT-2's shape (which choice differs is said), for a
    tokenizer that does not belong to it, and for a folder that holds another kind of model;
    TypeError for another class of model or tokenizer; OSError where writing fails.
    """
    folder = as_path(folder, "folder")
    weights = to_gpt2(model)
    if tokenizer is not None and not isinstance(tokenizer, BPETokenizer):
        raise TypeError(f"the tokenizer must be a BPETokenizer, not {shown(tokenizer)}")
    _check_vocabulary(tokenizer, model.config)
    if (folder / "config.json").exists():
        _read_config(folder)  # which refuses another kind of model, for it would be lost
    end = _end_of_text(tokenizer, model.config)
    ends = {"bos_token_id": end, "eos_token_id": end}
    dtype = str(model.wte.weight.dtype).removeprefix("torch.")
    config = {**config_to_gpt2(model.config), **ends, "torch_dtype": dtype}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "model.safetensors") as fresh:
            fresh.write_bytes(save(weights, {"format": "pt"}))
        _write_json(folder / "config.json", config)
        _write_json(folder / "generation_config.json", ends)
        if tokenizer is not None:
            with replacing(folder / "tokenizer.json") as fresh:
                tokenizer.save_huggingface(fresh)
            about = {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": model.config.block_size,
            }
            if end is not None:
                about.update(bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)
            _write_json(folder / "tokenizer_config.json", about)
    except OSError as error:
        raise unwritable(f"{folder} cannot be written", error) from error
    return folder


def _download(name: str) -> Path:
    """The folder in Hugging Face's cache with the files of a published GPT-2."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository = f"openai-community/{name}"
    try:
        try:
            paths = [hf_hub_download(repository, f, local_files_only=True) for f in HUB_FILES]
        except LocalEntryNotFoundError:
            # A download that fails tries again for minutes. This asks for the first file, once.
            url = hf_hub_url(repository, HUB_FILES[0])
            get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            paths = [hf_hub_download(repository, file) for file in HUB_FILES]
    except Exception as error:
        cause = error.__cause__ or error  # where the hub's client only says that something happened
        reason = shorten(str(cause), 200) or type(cause).__name__
        raise ConnectionError(
            f"cannot fetch {name} from Hugging Face's hub ({reason}); check the network, or give "
            "the path of a folder with its config.json and model.safetensors"
        ) from None
    return Path(paths[0]).parent


def _read_config(folder: Path) -> GPTConfig:
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} has no config.json: choose the folder of a GPT-2")
    fields = read_json(path)
    if str(fields.get("format")).startswith("llmkit"):
        raise ValueError(f"{folder} is llmkit's own checkpoint: use llmkit.checkpoint")
    try:
        return config_from_gpt2(fields)
    except ValueError as error:
        raise ValueError(f"{path} is not of a GPT-2 that llmkit knows: {error}") from None


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of model.safetensors, or of the files that its index lists."""
    files = ["model.safetensors"]
    index = folder / "model.safetensors.index.json"
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


def _read_tokenizer(folder: Path) -> BPETokenizer | None:
    if (folder / "tokenizer.json").exists():
        return BPETokenizer.from_huggingface(folder / "tokenizer.json")
    if any((folder / file).exists() for pair in GPT2_FILES for file in pair):
        return BPETokenizer.gpt2(folder)
    return None


def _check_vocabulary(tokenizer: BPETokenizer | None, config: GPTConfig) -> None:
    if tokenizer and not 0 <= config.vocab_size - tokenizer.vocab_size < PADDING:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens and the model "
            f"{config.vocab_size:,}: use the tokenizer that the model was trained with"
        )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as fresh:
        fresh.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _end_of_text(tokenizer: BPETokenizer | None, config: GPTConfig) -> int | None:
    """The id that ends a text: the tokenizer's, or that of GPT-2's vocabulary."""
    if tokenizer is None:
        return 50256 if config.vocab_size == 50257 else None
    return tokenizer.special_tokens.get(END_OF_TEXT)
