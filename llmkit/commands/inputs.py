"""What the commands that use a model are given: its folder, and a text to measure it on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from torch import Tensor

import llmkit
from llmkit.arguments import LanguageModel, Tokenizer
from llmkit.deploy import export
from llmkit.modern import smollm2


def add_model(command: argparse.ArgumentParser) -> None:
    """The arguments that choose a model, and where it runs."""
    kinds = "a run, a checkpoint, an export, a GPT-2 or another open model as transformers saves it"
    kinds += f", or {smollm2.SHORT}: the one that `fetch` brings"
    command.add_argument("folder", type=Path, metavar="FOLDER", help=kinds)
    command.add_argument("--device", help="cpu, cuda ... (default: a GPU where there is one)")


def load(folder: Path, device: str | None) -> tuple[LanguageModel, Tokenizer]:
    """The model, in eval mode, and its tokenizer. Raises what `export.load` raises, and ValueError
    for a folder without a tokenizer."""
    model, tokenizer = export.load(find(folder), llmkit.start(device=device).device)
    if tokenizer is None:
        raise ValueError(f"{folder} has no tokenizer: save the model together with its own")
    return model, tokenizer


def find(folder: Path) -> Path:
    """The folder that is meant by a word: `fetch`'s by its model's short name, where no other is
    there by that name. FileNotFoundError where it was not fetched."""
    if str(folder) != smollm2.SHORT or folder.exists():
        return folder
    if there := smollm2.fetched():
        return there
    raise FileNotFoundError(f"{smollm2.NAME} is not here yet: run `{smollm2.COMMAND}`")


def add_text(command: argparse.ArgumentParser) -> None:
    """The options that choose a text."""
    source = command.add_mutually_exclusive_group()
    names = ", ".join(llmkit.corpora())
    corpus = f"whose held-out tenth to measure on: {names} (default: the run's, else embedded)"
    source.add_argument("--corpus", help=corpus)
    source.add_argument("--text", metavar="FILE", help="likewise, a UTF-8 text or its address")


def held_out(options: argparse.Namespace, tokenizer: Tokenizer) -> tuple[Tensor, str]:
    """Ids of the validation split (N,), and its corpus's name: the one that was chosen, or else the
    one that the run in options.folder was trained on."""
    corpus = options.text or options.corpus
    report = Path(options.folder) / "report.json"
    if corpus is None and report.exists():
        try:
            corpus = json.loads(report.read_bytes())["corpus"]
        except (ValueError, LookupError, TypeError):
            raise ValueError(f"{report} is damaged: name a text with --corpus or --text") from None
    corpus = corpus or "embedded"
    return llmkit.split(tokenizer.encode(llmkit.load_text(corpus)))[1], corpus
