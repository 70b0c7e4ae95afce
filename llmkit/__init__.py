"""llmkit: the tested building blocks behind a series of notebooks on making a language model.

The names below are what notebooks use. Each lives in a module of its own, and a module imports only
from those listed before it:

distributed · runtime · data · tokenizer · bpe_files · bpe_training · bpe · textstream · pieces ·
parallel · resumable · tokenfile · ngram · attention · model · fast · optim · scale · evaluation ·
inference · decoding · generation · instruct · languages · folder · checkpoint · gpt2 · pretrained ·
quantize · onnx_export · export · train_config · run · training · checks · lora · recipes · probes ·
memorisation · privacy · filters · dp · card · pysource · completion · plots · widgets ·
playground · engine · serve

`python -m llmkit` has its commands in `llmkit.commands`, above all of these.
"""

from llmkit import (
    checkpoint,
    checks,
    distributed,
    export,
    instruct,
    languages,
    lora,
    pretrained,
    quantize,
    scale,
    tokenfile,
)
from llmkit.attention import CausalSelfAttention, attention, causal_mask
from llmkit.bpe import BPETokenizer
from llmkit.data import Batches, corpora, load_text, split
from llmkit.evaluation import evaluate, perplexity
from llmkit.generation import generate, stream
from llmkit.model import GPT, Block, GPTConfig
from llmkit.ngram import NeuralBigram, NGram
from llmkit.run import History
from llmkit.runtime import Runtime, start
from llmkit.tokenizer import CharTokenizer, WordTokenizer
from llmkit.train_config import TrainConfig
from llmkit.training import Checkpointer, ProgressBar, train

__version__ = "0.1.0"

__all__ = [
    "GPT",
    "BPETokenizer",
    "Batches",
    "Block",
    "CausalSelfAttention",
    "CharTokenizer",
    "Checkpointer",
    "FastGPT",
    "FastGPTConfig",
    "GPTConfig",
    "History",
    "NGram",
    "NeuralBigram",
    "ProgressBar",
    "Runtime",
    "TrainConfig",
    "WordTokenizer",
    "attention",
    "causal_mask",
    "checkpoint",
    "checks",
    "corpora",
    "distributed",
    "evaluate",
    "export",
    "generate",
    "instruct",
    "languages",
    "load_text",
    "lora",
    "perplexity",
    "pretrained",
    "quantize",
    "scale",
    "split",
    "start",
    "stream",
    "tokenfile",
    "train",
]


def __getattr__(name: str):
    """`FastGPT` is for racing: it is loaded when asked for, and stays out of a reader's way."""
    if name in ("FastGPT", "FastGPTConfig"):
        from llmkit import fast

        return getattr(fast, name)
    raise AttributeError(f"module 'llmkit' has no attribute {name!r}")
