"""Exports: a model as ONNX or with int8 weights, in a folder of its own; and every folder back.

    config.json          format, class and configuration of the model; a checksum of each file
    tokenizer.json       as in a checkpoint
    model.onnx           an ONNX export: see ``onnx`` (and model.onnx.data, if it is large)
    model.safetensors    an int8 export: see ``int8``

No pickle; written as a whole or not at all, as checkpoints are. `load` takes whatever kind of model
folder there is. Neither kind of export can be trained on.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import torch as safetensors
from torch import Tensor, nn

from llmkit import checkpoint, files
from llmkit.arguments import LanguageModel, Tokenizer, check_number
from llmkit.checkpoint import CHECKPOINT
from llmkit.deploy import int8
from llmkit.deploy.onnx import OnnxModel, write_onnx
from llmkit.evaluation import device_of, eval_mode, evaluate, vocab_size_of
from llmkit.finetune import pretrained
from llmkit.folders import (
    Kind,
    load_tokenizer,
    previous,
    read_file,
    read_header,
    steady,
    write_folder,
    write_tensors,
)
from llmkit.generation import generate
from llmkit.modern import folders, quick
from llmkit.runtime import find_device

ONNX = Kind("llmkit onnx 3", "ONNX export", {"model.onnx", "model.onnx.data", "tokenizer.json"})
INT8 = Kind("llmkit int8 3", "int8 export", {"model.safetensors", "tokenizer.json"})


def save_onnx(folder: str | Path, model: nn.Module, tokenizer: Tokenizer | None = None) -> Path:
    """Write an ONNX export, in place of the one that the folder may hold; returns the folder.

    Raises ImportError without the packages of `llmkit[export]`; TypeError and ValueError for a
    model that cannot be exported; ValueError for a folder that holds something else; OSError where
    writing fails.
    """
    gpt = int8.check(model)
    return write_folder(
        folder, ONNX, gpt.config, tokenizer, lambda place: write_onnx(gpt, place / "model.onnx")
    )


def save_int8(folder: str | Path, model: nn.Module, tokenizer: Tokenizer | None = None) -> Path:
    """Write an int8 export, likewise. model: an original, or one that `to_int8` made of it."""
    gpt = checkpoint.plain(model)

    def fill(place: Path) -> None:
        quantized = gpt if int8.is_int8(gpt) else int8.to_int8(gpt)
        write_tensors(place / "model.safetensors", int8.tensors(quantized))

    return write_folder(folder, INT8, gpt.config, tokenizer, fill)


@steady
def load(
    folder: str | Path, device: str | torch.device = "cpu"
) -> tuple[LanguageModel, Tokenizer | None]:
    """The model, ready to predict, and its tokenizer, None if the folder has none.

    folder: a checkpoint, a run's folder with `checkpoint` in it, an ONNX or int8 export, or as
        transformers saves it a GPT-2 or a model that `llmkit.modern` knows. device: an ONNX export
        runs on the CPU and ignores it.

    Raises FileNotFoundError for no folder, ValueError for one that is damaged or of another
    program, ImportError without the packages that an export needs.
    """
    place, device = find(folder), find_device(device)
    try:
        place, about = read_header(place, CHECKPOINT, ONNX, INT8)
    except ValueError:
        if not (family := _family(place)):
            raise
        theirs = pretrained.load_gpt2 if family == "gpt2" else folders.load
        open_model, bpe = theirs(place)
        return open_model.to(device), bpe
    if about["format"] == CHECKPOINT.format:
        return checkpoint.load(place, device)
    tokenizer = load_tokenizer(place, about)
    if about["format"] == ONNX.format:
        for name in about["files"]:
            read_file(place / name, about)  # or it is damaged
        model = OnnxModel(place / "model.onnx", about["config"])
        return model.eval(), tokenizer
    path = place / "model.safetensors"
    with files.reading(path, "export the model again"):
        found = safetensors.load(read_file(path, about))
        return int8.from_tensors(about["config"], found).to(device), tokenizer


def find(folder: str | Path) -> Path:
    """The folder of the model: ``checkpoint`` in it, where that is what a run left there."""
    folder = files.as_path(folder, "folder")
    inner = folder / "checkpoint"
    there = inner.is_dir() or previous(inner).is_dir()  # killed between two renames
    return inner if there and not (folder / "config.json").exists() else folder


def file_bytes(folder: str | Path) -> int:
    """Bytes of the files with the model in them; no tokenizer, no state of training."""
    names = [*find(folder).glob("model*.safetensors"), *find(folder).glob("model.onnx*")]
    return sum(path.stat().st_size for path in names)


@dataclass(frozen=True)
class Measured:
    """How a model does, on the machine and the device that it is on."""

    window_ms: float  # milliseconds for the scores of one full window
    tokens_per_second: float  # generated, one text, within one window, from one token on
    perplexity: float | None  # of all of a text, None where there was none


@torch.no_grad()
def measure(model: LanguageModel, ids: Tensor | None = None, seconds: float = 0.5) -> Measured:
    """Time a model, and measure it on a text.

    ids: (N,), the text. seconds: for each of the two times, which are medians of at least three.
    """
    vocab_size_of(model)  # or it is no model
    check_number("seconds", seconds, above=0, most=3600)
    room, device = model.config.block_size, device_of(model)
    window = torch.arange(room, device=device)[None] % model.config.vocab_size  # (1, T)
    new = min(room - 1, 128) or 1
    writer = quick(model)

    def read_window() -> None:
        model(window)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def make_text() -> None:
        generate(writer, window[0, :1].cpu(), new, seed=0)

    with eval_mode(model):
        window_seconds, text_seconds = _median(read_window, seconds), _median(make_text, seconds)
    perplexity = None if ids is None else evaluate(model, ids).perplexity
    return Measured(1000 * window_seconds, new / text_seconds, perplexity)


def _median(run: Callable[[], None], seconds: float) -> float:
    """Seconds that a run takes, after one that does not count."""
    run()
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < seconds:
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _family(folder: Path) -> str | None:
    """Of which kind a config.json of transformers' says that a model is; None for another file."""
    try:
        return str(files.read_json(folder / "config.json")["model_type"])
    except (FileNotFoundError, ValueError, KeyError):
        return None
