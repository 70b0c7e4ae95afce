"""`python -m llmkit serve`: a trained model over HTTP, with a page to try it in."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import torch

from llmkit.arguments import LanguageModel, Tokenizer
from llmkit.commands import inputs
from llmkit.deploy import export
from llmkit.finetune import chatml
from llmkit.speed import cpu

KEY = "LLMKIT_API_KEY"


def add(commands: argparse._SubParsersAction) -> None:
    """The command and its options."""
    command = commands.add_parser("serve", help="answer requests over HTTP")
    inputs.add_model(command)
    option = command.add_argument
    first = (
        "what the system says before a conversation (default: as the model's own template has it)"
    )
    option("--system", metavar="TEXT", help=first)
    option("--host", default="127.0.0.1", help="where to listen (%(default)s: this machine only)")
    option("--port", type=int, default=8000, help="%(default)s; 0: one that is free")
    option("--name", help="what clients call the model (default: the folder's name)")
    option("--api-key", metavar="KEY", help=f"what clients must send (default: ${KEY}, if set)")
    named = "another name under which the server may be addressed; may be repeated"
    option("--allow-host", metavar="NAME", action="append", default=[], help=named)
    limits = command.add_argument_group("limits")
    limit = limits.add_argument
    limit("--queue", type=int, default=32, help="requests that may wait (%(default)s)")
    limit("--batch", type=int, default=16, help="texts drawn together (%(default)s)")
    limit("--max-prompt", type=int, default=4096, help="tokens of a prompt (%(default)s)")
    limit("--max-tokens", type=int, default=1024, help="tokens of an answer (%(default)s)")
    limit("--max-body", type=int, default=2**18, help="bytes of a request (%(default)s)")
    limit("--timeout", type=float, default=60.0, help="seconds for an answer (%(default)s)")
    grace = "seconds that running requests have when told to stop (%(default)s)"
    limit("--grace", type=float, default=10.0, help=grace)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM; then finish what runs, and end with status 0."""
    name, model, tokenizer = load(options.folder, options.device)
    from llmkit.deploy import server  # after what is wrong with the folder was told

    key = options.api_key if options.api_key is not None else os.environ.get(KEY) or None
    if all(weight.numel() < cpu.LARGE for weight in model.parameters()):
        torch.set_num_threads(1)  # the model is soon done alone, and another core has the clients
    local, names = server.is_loopback(options.host), options.allow_host
    system = options.system
    if system is None:
        system = chatml.default_system(export.find(inputs.find(options.folder)))
    settings = server.Settings(
        name=options.name or name,
        queue=options.queue,
        batch=options.batch,
        max_prompt=options.max_prompt,
        max_tokens=options.max_tokens,
        max_body=options.max_body,
        timeout=options.timeout,
        grace=options.grace,
        system=system,
        api_key=key,
        hosts=(*server.LOOPBACK, options.host, *names) if local or names else None,
    )
    if not local and key is None:
        print(
            f"warning: on {options.host} others can reach this server, and it asks nobody for a "
            "key: give --api-key, or stay on 127.0.0.1",
            file=sys.stderr,
        )

    def announce(url: str) -> None:
        print(f"serving {settings.name} on {url} (Ctrl-C stops it)", flush=True)

    server.run(server.create_app(model, tokenizer, settings), options.host, options.port, announce)
    return 0


def load(folder: Path, device: str | None = None) -> tuple[str, LanguageModel, Tokenizer]:
    """What a folder holds: a name for it, the model and its tokenizer; errors as `inputs.load`."""
    folder = inputs.find(folder)
    named = export.find(folder).resolve()
    name = named.parent.name if named.name == "checkpoint" else named.name
    if named.name in ("onnx", "int8"):  # as `export` calls them in a run's folder
        name = f"{named.parent.name}-{name}"
    name = re.sub(r"[^\w.-]+", "-", name) or "llmkit"
    return name, *inputs.load(folder, device)
