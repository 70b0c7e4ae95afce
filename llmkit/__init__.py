"""llmkit: the tested building blocks behind a series of notebooks on making a language model.

The files of this folder are the course, notebooks 01 to 08; they import each other, and nothing
else of llmkit. Each folder is one later part of it:

    bpe/            09          subword tokens
    speed/          10          a racing model, decoding
    scale/          10b, 10c    what a model costs, what it will lose; many processes, large texts
    finetune/       11 to 13    GPT-2's weights, LoRA, instructions
    modern/         after 11    Llama, Qwen and their kind
    deploy/         14          exports, and a server
    responsible/    15, 16      memory, bias, personal data
    projects/       17, 18      code completion, several languages
    drawings/       all         the schematic drawings
    exercises/      all         the checks of the notebooks' exercises
    commands/                   python -m llmkit

A folder imports the files and, where its docstring says so, another folder. `import llmkit` loads
the files alone; a folder comes when it is asked for.
"""

import os
import sys
from importlib import import_module
from typing import Any

# PyTorch's threads wait for each other by spinning. Where another program has one of few cores, a
# step then takes ten times as long; told to sleep, twice. They read this once, as torch is loaded.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from llmkit import checkpoint, checks
from llmkit.attention import CausalSelfAttention, attention, causal_mask
from llmkit.callbacks import Checkpointer, ProgressBar, Sampler
from llmkit.data import Batches, corpora, load_text, split
from llmkit.evaluation import evaluate, perplexity
from llmkit.generation import generate, stream
from llmkit.model import GPT, Block, GPTConfig
from llmkit.ngram import NeuralBigram, NGram
from llmkit.runtime import Runtime, start
from llmkit.tokenizer import CharTokenizer, WordTokenizer
from llmkit.train_config import History, TrainConfig
from llmkit.training import Trainer, train

__version__ = "0.1.0"

LATER = {  # what a folder gives to `llmkit.`, and where it stands
    "BPETokenizer": "llmkit.bpe",
    "FastGPT": "llmkit.speed.fast_gpt",
    "FastGPTConfig": "llmkit.speed.fast_gpt",
    "exercises": "llmkit",
    "pretrained": "llmkit.finetune",
}

__all__ = [
    "GPT",
    "Batches",
    "Block",
    "CausalSelfAttention",
    "CharTokenizer",
    "Checkpointer",
    "GPTConfig",
    "History",
    "NGram",
    "NeuralBigram",
    "ProgressBar",
    "Runtime",
    "Sampler",
    "TrainConfig",
    "Trainer",
    "WordTokenizer",
    "attention",
    "causal_mask",
    "checkpoint",
    "checks",
    "corpora",
    "evaluate",
    "generate",
    "load_text",
    "perplexity",
    "split",
    "start",
    "stream",
    "train",
    *LATER,
]


def __getattr__(name: str) -> Any:
    """What lives in a folder is imported when it is first asked for."""
    if name not in LATER:
        raise AttributeError(f"module 'llmkit' has no attribute {name!r}")
    home = import_module(LATER[name])
    found = None if LATER[name] == __name__ else getattr(home, name, None)
    return found or import_module(f"{LATER[name]}.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
