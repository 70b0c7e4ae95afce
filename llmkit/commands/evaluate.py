"""`python -m llmkit evaluate`: how good a model is, over the whole held-out text."""

from __future__ import annotations

import argparse

import llmkit
from llmkit.commands import inputs


def add(commands: argparse._SubParsersAction) -> None:
    """The command and its options."""
    command = commands.add_parser("evaluate", help="measure a model on a held-out text")
    inputs.add_model(command)
    inputs.add_text(command)
    stride = "tokens from one window to the next (default: windows that do not overlap)"
    command.add_argument("--stride", type=int, help=stride)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, and print what `train` prints of a model."""
    model, tokenizer = inputs.load(options.folder, options.device)
    ids, corpus = inputs.held_out(options, tokenizer)
    characters = len(tokenizer.decode(ids[1:]))
    report = llmkit.evaluate(model, ids, stride=options.stride, characters=characters)
    print(f"held-out text    the last tenth of {corpus}, {report.tokens:,} tokens")
    print(f"validation loss  {report.loss:.4f} nats per token")
    print(f"perplexity       {report.perplexity:.3f}")
    print(f"bits per char    {report.bits_per_char:.4f}")
    return 0
