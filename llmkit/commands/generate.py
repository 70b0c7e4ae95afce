"""`python -m llmkit generate`: a trained model writes, and one reads along."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import llmkit
from llmkit.bpe.files import END_OF_TEXT
from llmkit.deploy import export
from llmkit.deploy.text_stream import TextStream


def add(commands: argparse._SubParsersAction) -> None:
    """The command and its options."""
    command = commands.add_parser("generate", help="let a model write")
    option = command.add_argument
    option("folder", type=Path, metavar="FOLDER", help=export.FOLDERS)
    option("--prompt", metavar="TEXT", help="what the text begins with (default: a new line)")
    option("--tokens", type=int, default=400, help="how many at most (%(default)s)")
    option("--temperature", type=float, default=0.8, help="0: always the likeliest (%(default)s)")
    option("--top-k", type=int, metavar="K", help="choose among the K likeliest tokens")
    option("--top-p", type=float, metavar="P", help="among the fewest with a share of P together")
    option("--stop", metavar="TEXT", action="append", default=[], help="ends the text; repeatable")
    option("--seed", type=int, help="same seed, same text")
    option("--device", help="cpu, cuda ... (default: a GPU where there is one)")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print prompt and text, each piece as it is drawn."""
    if "" in options.stop:
        raise ValueError("a stop string must have a character or more")
    model, tokenizer = export.load(options.folder, llmkit.start(device=options.device).device)
    if tokenizer is None:
        raise ValueError(f"{options.folder} has no tokenizer: no text goes in or comes out")
    end = getattr(tokenizer, "special_tokens", {}).get(END_OF_TEXT)
    ids = tokenizer.encode(options.prompt) if options.prompt else _beginning(tokenizer, end)
    choices = (options.temperature, options.top_k, options.top_p, end, options.seed)
    text = TextStream(tokenizer, options.stop)
    print(options.prompt or "", end="", flush=True)
    with closing(llmkit.stream(model, ids, options.tokens, *choices)) as tokens:
        for token in tokens:
            if token != end:
                print(text.push(token), end="", flush=True)
            if text.stopped:
                break
    print(text.end())
    return 0


def _beginning(tokenizer: Any, end: int | None) -> Tensor:
    """Ids (1,) after which a text begins: the end of another one, or of a line."""
    if end is not None:
        return torch.tensor([end])
    try:
        return tokenizer.encode("\n")
    except ValueError:
        raise ValueError("the model knows no new line: say with --prompt how to begin") from None
