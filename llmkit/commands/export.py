"""`python -m llmkit export`: a model as ONNX or with int8 weights, beside what that changes."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from llmkit.commands import inputs
from llmkit.deploy import export, int8
from llmkit.model import GPT
from llmkit.types import LanguageModel


def add(commands: argparse._SubParsersAction) -> None:
    """The command and its options."""
    command = commands.add_parser("export", help="write a model as ONNX or with int8 weights")
    where = "a checkpoint, a run's folder, or a GPT-2 as transformers saves it"
    command.add_argument("folder", type=Path, metavar="FOLDER", help=where)
    command.add_argument("--onnx", action="store_true", help="one file for onnxruntime and others")
    command.add_argument("--int8", action="store_true", help="a byte for each weight")
    out = "the export's folder; with both kinds, the one for `onnx` and `int8` (default: in the "
    out += "run's folder, or beside the model's)"
    command.add_argument("--out", type=Path, metavar="FOLDER", help=out)
    inputs.add_text(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Export, load what was written, measure both, and print one table."""
    if not (options.onnx or options.int8):
        raise ValueError("say which export you want: --onnx, --int8 or both")
    model, tokenizer = export.load(options.folder)
    if not isinstance(model, GPT) or int8.is_int8(model):
        raise ValueError(f"{options.folder} is an export already: give the model that it came from")
    ids, on = None, "no text: no tokenizer"
    if tokenizer:
        ids, corpus = inputs.held_out(options, tokenizer)
        on = f"all {len(ids) - 1:,} held-out tokens of {corpus}"
    written = {}
    if options.onnx:
        written["onnx"] = export.save_onnx(_place(options, "onnx"), model, tokenizer)
    if options.int8:
        written["int8"] = export.save_int8(_place(options, "int8"), model, tokenizer)
    print(f"GPT of {model.num_parameters():,} parameters, measured on {on}\n")
    print(_table(options.folder, model, written, ids))
    print()
    for name, folder in written.items():
        print(f"{name:10}{folder}")
    return 0


def _place(options: argparse.Namespace, name: str) -> Path:
    """Where an export goes."""
    if options.out:
        return options.out / name if options.onnx and options.int8 else options.out
    folder = options.folder
    if export.find(folder) != folder.expanduser():
        return folder / name
    return folder.resolve().with_name(f"{folder.resolve().name}-{name}")


def _table(original: Path, model: GPT, written: dict[str, Path], ids: Tensor | None) -> str:
    """Sizes, speed and perplexity of the original and of each export, loaded again."""
    window = f"window of {model.config.block_size}"
    lines = [("", "file", "linear weights", window, "tokens/s", "perplexity")]
    for name, folder in {"original": original, **written}.items():
        each: LanguageModel = model if folder == original else export.load(folder)[0]
        found = export.measure(each, ids)
        weights = each if isinstance(each, GPT) else model  # an ONNX file has the original's
        lines.append(
            (
                name,
                _megabytes(export.file_bytes(folder)),
                _megabytes(int8.linear_bytes(weights)),
                f"{found.window_ms:.2f} ms",
                f"{found.tokens_per_second:,.0f}",
                "" if found.perplexity is None else f"{found.perplexity:.4f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB"
