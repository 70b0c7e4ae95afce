"""`python -m llmkit export`: a model as ONNX or with int8 weights, beside what that changes; or as
a page, in which it runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from llmkit.arguments import LanguageModel, Tokenizer
from llmkit.commands import inputs
from llmkit.deploy import export, int8, web
from llmkit.evaluation import evaluate
from llmkit.model import GPT

BEGINNING = 200  # tokens of the held-out text, of whose lines one is the page's first text


def add(commands: argparse._SubParsersAction) -> None:
    """The command and its options."""
    command = commands.add_parser("export", help="write a model as ONNX, int8 or a web page")
    where = "a checkpoint, a run's folder, or a GPT-2 as transformers saves it"
    command.add_argument("folder", type=Path, metavar="FOLDER", help=where)
    command.add_argument("--onnx", action="store_true", help="one file for onnxruntime and others")
    command.add_argument("--int8", action="store_true", help="a byte for each weight")
    page = "a folder for any file server: the model runs in the reader's browser"
    command.add_argument("--web", action="store_true", help=page)
    known = f"for --web: the unpacked npm package {web.runtime.PACKAGE} (default: npm fetches it)"
    command.add_argument("--runtime", type=Path, metavar="FOLDER", help=known)
    out = "the export's folder; with several kinds, the one for `onnx`, `int8` and `web` (default: "
    out += "in the run's folder, or beside the model's)"
    command.add_argument("--out", type=Path, metavar="FOLDER", help=out)
    inputs.add_text(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Export, load what was written, measure it beside the original, and print one table."""
    kinds = [kind for kind in ("onnx", "int8", "web") if getattr(options, kind)]
    if not kinds:
        raise ValueError("say which export you want: --onnx, --int8, --web or several of them")
    if options.runtime and not options.web:
        raise ValueError("--runtime is for --web: give both or none")
    model, tokenizer = export.load(options.folder)
    if not isinstance(model, GPT) or int8.is_int8(model):
        raise ValueError(f"{options.folder} is an export already: give the model that it came from")
    if options.web:
        if tokenizer is None:
            raise ValueError(f"{options.folder} has no tokenizer: a page could not read a text")
        web.check(model, tokenizer)
    ids, on = None, "no text: no tokenizer"
    if tokenizer:
        ids, corpus = inputs.held_out(options, tokenizer)
        on = f"all {len(ids) - 1:,} held-out tokens of {corpus}"
    save = {"onnx": export.save_onnx, "int8": export.save_int8}
    places = {kind: _place(options, kind, len(kinds)) for kind in kinds}
    if tokenizer and ids is not None and options.web:
        found = web.runtime.find(options.runtime)  # or all else would be for nothing
        quantized = int8.to_int8(model)
        about = _about(options.folder, quantized, tokenizer, ids, on)
        web.save_web(places["web"], quantized, tokenizer, about, found)
    written = {kind: save[kind](places[kind], model, tokenizer) for kind in kinds if kind in save}
    if written:
        print(f"GPT of {model.num_parameters():,} parameters, measured on {on}\n")
        print(_table(options.folder, model, written, ids))
        print()
    for name, folder in places.items():
        print(f"{name:10}{folder}")
    if options.web:
        print(f"to see it  python -m http.server --directory {places['web']}")
    return 0


def _about(
    folder: Path, quantized: GPT, tokenizer: Tokenizer, ids: Tensor, on: str
) -> dict[str, str]:
    """What the page says of the model: its name, its size, its held-out loss, and a beginning."""
    name = export.find(folder).resolve()
    name = name.parent if name.name == "checkpoint" else name
    loss = evaluate(quantized, ids).loss
    text = tokenizer.decode(ids[:BEGINNING])
    lines = [line for line in text.splitlines(keepends=True)[1:-1] if line.strip()]
    note = f"{quantized.num_parameters():,} parameters, a byte each; held-out loss {loss:.3f} nats "
    note += f"per token, on {on}."
    return {"name": name.name, "note": note, "text": lines[0] if lines else text}


def _place(options: argparse.Namespace, name: str, kinds: int) -> Path:
    """Where an export goes."""
    if options.out:
        return options.out / name if kinds > 1 else options.out
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
