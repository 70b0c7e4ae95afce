"""Which text a model is measured on: the held-out tenth of its own corpus, or of another."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from torch import Tensor

import llmkit


def add(command: argparse.ArgumentParser) -> None:
    """The options that choose a text."""
    source = command.add_mutually_exclusive_group()
    names = ", ".join(llmkit.corpora())
    corpus = f"whose held-out tenth to measure on: {names} (default: the run's, else embedded)"
    source.add_argument("--corpus", help=corpus)
    source.add_argument("--text", metavar="FILE", help="likewise, a UTF-8 text or its address")


def ids(options: argparse.Namespace, tokenizer: Any) -> tuple[Tensor, str]:
    """Ids of the validation split (N,), and its corpus's name. options.folder is the model's."""
    corpus = options.text or options.corpus
    report = Path(options.folder) / "report.json"
    if corpus is None and report.exists():
        try:
            corpus = json.loads(report.read_bytes())["corpus"]
        except (ValueError, LookupError, TypeError):
            raise ValueError(f"{report} is damaged: name a text with --corpus or --text") from None
    corpus = corpus or "embedded"
    return llmkit.split(tokenizer.encode(llmkit.load_text(corpus)))[1], corpus
