"""`python -m llmkit generate`: a trained model writes, and one reads along."""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

import llmkit
from llmkit.arguments import Tokenizer
from llmkit.commands import inputs
from llmkit.deploy.text_stream import TextStream, end_of_text
from llmkit.modern import quick


def add(commands: argparse._SubParsersAction) -> None:
    """The command and its options."""
    command = commands.add_parser("generate", help="let a model write")
    inputs.add_model(command)
    option = command.add_argument
    option("--prompt", metavar="TEXT", help="what the text begins with (default: a new line)")
    option("--tokens", type=int, default=400, help="how many at most (%(default)s)")
    option("--temperature", type=float, default=0.8, help="0: always the likeliest (%(default)s)")
    option("--top-k", type=int, metavar="K", help="choose among the K likeliest tokens")
    option("--top-p", type=float, metavar="P", help="among the fewest with a share of P together")
    option("--stop", metavar="TEXT", action="append", default=[], help="ends the text; repeatable")
    option("--seed", type=int, help="same seed, same text")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print prompt and text, each piece as it is drawn."""
    model, tokenizer = inputs.load(options.folder, options.device)
    text = TextStream(tokenizer, options.stop)
    end = end_of_text(tokenizer)
    ids = tokenizer.encode(options.prompt) if options.prompt else _beginning(tokenizer, end)
    choices = (options.temperature, options.top_k, options.top_p, end, options.seed)
    print(options.prompt or "", end="", flush=True)
    for token in llmkit.stream(quick(model), ids, options.tokens, *choices):
        if token != end:
            print(text.push(int(token)), end="", flush=True)
        if text.stopped:
            break
    print(text.end())
    return 0


def _beginning(tokenizer: Tokenizer, end: int | None) -> Tensor:
    """Ids (1,) after which a text begins: the end of another one, or of a line."""
    if end is not None:
        return torch.tensor([end])
    try:
        return tokenizer.encode("\n")
    except ValueError:
        raise ValueError("the model knows no new line: say with --prompt how to begin") from None
