"""Pretrained GPT-2, in and out: Hugging Face's hub and the folders that transformers writes.

    config.json          the shape
    model.safetensors    the weights (large ones in several files, with an index)
    tokenizer files      tokenizer.json, or vocab.json + merges.txt, or encoder.json + vocab.bpe

How the weights are named and turned is told in ``gpt2``, how files are read and written whatever
the model in ``folder``. llmkit's own folders, which hold any model
and the state of its training, are ``checkpoint``'s.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten

from safetensors.torch import save

from llmkit.bpe.tokenizer import BPETokenizer
from llmkit.files import as_path, reading, replacing, unwritable
from llmkit.finetune.folder import (
    check_vocabulary,
    end_of_text,
    read_config,
    read_tokenizer,
    read_weights,
    write_json,
    write_tokenizer,
)
from llmkit.finetune.gpt2 import config_from_gpt2, config_to_gpt2, from_gpt2, to_gpt2
from llmkit.model import GPT, GPT2_SIZES

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
        config = read_config(folder, config_from_gpt2, "a GPT-2")
        tokenizer = read_tokenizer(folder)
        check_vocabulary(tokenizer, config)
        tokens = tokenizer.vocab_size if tokenizer else None
        return from_gpt2(read_weights(folder), config, tokens), tokenizer


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
    check_vocabulary(tokenizer, model.config)
    if (folder / "config.json").exists():
        # Another kind of model is refused, for it would be lost.
        read_config(folder, config_from_gpt2, "a GPT-2")
    end = end_of_text(tokenizer, model.config)
    ends = {"bos_token_id": end, "eos_token_id": end}
    dtype = str(model.wte.weight.dtype).removeprefix("torch.")
    config = {**config_to_gpt2(model.config), **ends, "torch_dtype": dtype}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "model.safetensors") as fresh:
            fresh.write_bytes(save(weights, {"format": "pt"}))
        write_json(folder / "config.json", config)
        write_json(folder / "generation_config.json", ends)
        if tokenizer is not None:
            write_tokenizer(folder, tokenizer, model.config, end)
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
