"""The model in the page: a folder that any file server hands out, and that runs in a browser.

    config.json, tokenizer.json    as in every model folder
    model.onnx                     int8 weights: see `graph`
    about.json                     what the page says of the model
    index.html page.css            the page
    page.js model.js tokenizer.js  its controls; the model and the drawing of tokens; text to ids
    ort.js ort.wasm                onnxruntime-web: see `runtime`

The files of the page lie beside this one as they are handed out, plain modules that no program has
packed. They ask no other host for anything. What they compute is compared with llmkit in
tests/test_web.py, through Node, and in Chromium.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from llmkit.arguments import Tokenizer, check_type
from llmkit.bpe import BPETokenizer
from llmkit.checkpoint import plain
from llmkit.deploy import int8
from llmkit.deploy.web import runtime
from llmkit.deploy.web.graph import write_graph
from llmkit.folders import Kind, write_folder
from llmkit.model import GPT
from llmkit.tokenizer import CharTokenizer

__all__ = ["check", "runtime", "save_web", "write_graph"]

PAGE = Path(__file__).parent
PARTS = ("index.html", "page.css", "page.js", "model.js", "tokenizer.js")
WEB = Kind(
    "llmkit web 1",
    "page of a model",
    {"model.onnx", "tokenizer.json", "about.json", *PARTS, *runtime.FILES},
)
MOST = 50_000_000  # parameters, a byte each on their way and four in the browser's memory


def save_web(
    folder: str | Path,
    model: nn.Module,
    tokenizer: Tokenizer,
    about: dict[str, str],
    found: dict[str, bytes],
) -> Path:
    """Write the page of a model, in place of the one that the folder may hold; returns the folder.

    model: an original, or one that `int8.to_int8` made of it. about: what the page says of it:
    "name", "note", a sentence or two, and "text", which is in its box at first. found: what
    `runtime.find` found.

    Raises ImportError without the packages of `llmkit[export]`; TypeError and ValueError for a
    model or a tokenizer that cannot be shown; ValueError for a folder that holds something else;
    OSError where writing fails.
    """
    quantized = check(model, tokenizer)
    check_type("about", about, dict)
    check_type("found", found, dict)
    if not int8.is_int8(model):
        quantized = int8.to_int8(quantized)

    def fill(place: Path) -> None:
        write_graph(quantized, place / "model.onnx")
        (place / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        for name in PARTS:
            (place / name).write_bytes((PAGE / name).read_bytes())
        for name, content in found.items():
            (place / name).write_bytes(content)

    return write_folder(folder, WEB, quantized.config, tokenizer, fill)


def check(model: nn.Module, tokenizer: Tokenizer) -> GPT:
    """The model without torch.compile's wrapping, if a page can show it; errors as `save_web`."""
    check_type("tokenizer", tokenizer, CharTokenizer, BPETokenizer)
    gpt = plain(model) if int8.is_int8(model) else int8.check(model)
    if (size := gpt.num_parameters()) > MOST:
        raise ValueError(
            f"the model is too large for a page: it has {size:,} parameters, and a browser should "
            f"not be given more than {MOST:,}; serve it instead, with python -m llmkit serve"
        )
    if tokenizer.vocab_size != gpt.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, and the model "
            f"{gpt.config.vocab_size}: give the model's own tokenizer"
        )
    return gpt
