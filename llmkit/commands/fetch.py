"""`python -m llmkit fetch`: a real language model, for the pages that can use one."""

from __future__ import annotations

import argparse

from llmkit.modern import fetch, smollm2


def add(commands: argparse._SubParsersAction) -> None:
    """The command, which has no options."""
    told = f"fetch {smollm2.NAME}, a real language model (93 MB, once)"
    commands.add_parser("fetch", help=told).set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fetch it, unless it is there, and say where it is."""
    print(f"{smollm2.NAME}  {fetch()}")
    return 0
