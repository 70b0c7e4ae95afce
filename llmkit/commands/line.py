"""The command line: train a language model, and use it."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout

from llmkit.commands import evaluate, export, fetch, generate, serve, train
from llmkit.scale import distributed

COMMANDS = (train, evaluate, generate, export, serve, fetch)


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Exit status: 0; 2 after an error, told in a sentence; 130 after Ctrl-C.

    Of several processes (started by torchrun) the first one prints; an error is told by whichever
    meets it first.
    """
    stderr = sys.stderr
    with ExitStack() as stack:
        if distributed.join().rank > 0:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        options = parser().parse_args(arguments)
        try:
            status = options.run(options)
            distributed.leave()
            return status
        except (ValueError, OSError, FloatingPointError, ImportError) as error:
            if distributed.first_to_tell():
                print(f"error: {error}", file=stderr)
            return 2
        except KeyboardInterrupt:
            if distributed.first_to_tell():
                print("interrupted", file=stderr)
            return 130


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="python -m llmkit", description=__doc__.splitlines()[0])
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top
