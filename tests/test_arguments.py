"""Wrong arguments at every public entry point of the core, `bpe`, `finetune`, `modern`,
`preferences`, `deploy`:
None, True, a string, a complex number, NaN, too small, empty, another dtype or shape.

Each must give a ValueError or TypeError that llmkit itself raises, one line that names the
argument: no words of PyTorch's or Python's from inside, and no silent success.
"""

from __future__ import annotations

import ast
import re
import sys
import traceback
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import api_page
import pytest
import torch
from torch import nn

import llmkit
from llmkit import checkpoint, checks, generation, modern, optim
from llmkit import tokenizer as tokenizers
from llmkit.__main__ import main
from llmkit.attention import attention_weights, rotary, sinusoids
from llmkit.commands import serve
from llmkit.deploy import engine, export, int8, onnx, server, text_stream, trial
from llmkit.finetune import chatml, gpt2, instructions, lora, pretrained
from llmkit.finetune.widgets import Rater
from llmkit.preferences import answers, chat, dpo, grpo
from llmkit.scale import token_file

PACKAGE = Path(llmkit.__file__).parent
FOLDERS = ("", "bpe", "finetune", "modern", "preferences", "deploy")
TEXT = "the river was wide and the river was cold, said the miller to the carter\n" * 3
TOKENIZER = llmkit.CharTokenizer.from_text(TEXT + "QA:")
WORDS = llmkit.WordTokenizer.from_text(TEXT)
BPE = llmkit.BPETokenizer.train(TEXT, 270, ["<|endoftext|>"])
V = TOKENIZER.vocab_size
CHATTY = llmkit.BPETokenizer.train(TEXT, 270, [chatml.START, chatml.END])
CONFIG = llmkit.GPTConfig(V, 32, n_layer=1, n_head=2, n_embd=16)
IDS = torch.arange(200) % V
ROWS = IDS[:16].view(2, 8)
ITEM = instructions.Item(1, "say", "the river", "was", "cold")
SHORT = instructions.Item(2, "say", "river", "was", "cold")
CHAT = [{"role": "user", "content": "who"}]
EXAMPLE = instructions.encode(ITEM, TOKENIZER)
STEP = llmkit.TrainConfig(steps=1, batch_size=2)
nan, inf = float("nan"), float("inf")


class Odd:
    """No kind of argument at all."""

    def __repr__(self) -> str:
        return "Odd()"


def gpt(**changes: Any) -> llmkit.GPT:
    torch.manual_seed(0)
    return llmkit.GPT(llmkit.GPTConfig(**{**vars(CONFIG), **changes}))


def today() -> modern.Modern:
    return modern.Modern(modern.ModernConfig(BPE.vocab_size, 32, 1, 2, 16))


def adapted() -> nn.Module:
    return lora.apply(gpt(), 2)


model0 = gpt()  # stands for a fresh one, where a call changes its model


STRANGE = [2 + 1j, Odd()]
CUBE = torch.zeros(2, 3, 4, dtype=torch.int64)
NOT_IDS = [CUBE, torch.zeros(3), torch.zeros(3, dtype=torch.bool)]
NOT_ROWS = [CUBE, torch.zeros(2, 3), CUBE[0, 0], CUBE[:0, 0]]
WRONG: dict[str, list[Any]] = {
    "ids": [None, True, "abc", nan, -1, [-1], [0.5], [[1, 2], [3]], [True], {}, *STRANGE, *NOT_IDS],
    "rows": [None, True, "abc", nan, 3, [], {}, *STRANGE, *NOT_ROWS],
    "any rows": [None, True, "abc", nan, 3, [], {}, *STRANGE, *NOT_ROWS[:-1]],
    "floats": [None, True, "abc", [1.0], nan, *STRANGE],
    "count": [None, True, "3", nan, inf, -1, 0, 2.5, [3], torch.zeros(3), *STRANGE],
    "number": [None, True, "0.1", nan, inf, -1.0, [0.1], torch.zeros(3), *STRANGE],
    "seed": [None, True, "1", nan, 2.5, -1, 2**70, [1], *STRANGE],
    "text": [None, True, 3, nan, b"abc", ["a"], [], *STRANGE],
    "path": [None, True, 3, nan, b"abc", [], *STRANGE],
    "flag": [None, "no", 3, nan, [], *STRANGE],
    "model": [None, True, "gpt2", nan, [], nn.Linear(2, 2), *STRANGE],
    "tokenizer": [None, True, "characters", nan, [], *STRANGE],
    "device": ["nowhere", nan, [], *STRANGE],
    "choice": [None, True, "nonsense", 3, [], *STRANGE],
    "config": [None, True, "large", nan, {}, [], *STRANGE],
}
WRONG |= {
    "sequence": [None, True, nan, -1, {}, [], "", *STRANGE],
    "stop": [True, "abc", nan, -1, [-1], [0.5], [[1, 2], [3]], [True], [[1]], *STRANGE],
    "loss": [None, True, "abc", [1.0], *STRANGE],
    "characters": [None, True, 3, nan, [], "", [1], ["a", "a"], *STRANGE],
    "texts": [None, True, 3, nan, [1], *STRANGE],
    "merges": [None, True, "ab", 3, nan, [1], [("a", "b")], [(b"a",)], *STRANGE],
    "item": [None, True, "x", 3, {}, *STRANGE],
    "items": [None, True, "x", 3, [1], *STRANGE],
    "examples": [None, True, "x", 3, [], [1], *STRANGE],
    "callbacks": [None, True, "x", 3, ["x"], *STRANGE],
    "pairs": [None, True, "x", 3, [], [1], *STRANGE],
    "tensors": [None, True, "x", 3, {"a": 1}, *STRANGE],
    "word": [None, True, 3, nan, b"abc", ["a"], [], *STRANGE],
    "callable": [None, True, "x", 3, *STRANGE],
    "names": [None, True, "x", 3, {"user": 3}, {3: "Q"}, *STRANGE],
    "messages": [None, True, "x", 3, {}, [], [1], [{"role": "user"}], *STRANGE],
    "module": [None, True, "gpt2", nan, [], *STRANGE],
}
WRONG["count0"] = [value for value in WRONG["count"] if value is None or repr(value) != "0"]


def on_adapted(do: Any, model: Any) -> None:
    do(adapted() if model is model0 else model)


Call = tuple[Any, dict[str, tuple[str, Any]]]  # what is called, and of each argument: kind, value


def table(folder: Path) -> dict[str, Call]:
    """Every entry point with arguments that work, and of which kind each is."""
    checkpoint.save(folder / "saved", gpt(), TOKENIZER)
    lora.save(folder / "adapter.safetensors", adapted())
    TOKENIZER.save(folder / "tokenizer.json")
    BPE.save_huggingface(folder / "bpe.json")
    pretrained.save_gpt2(gpt(vocab_size=BPE.vocab_size), folder / "gpt2", BPE)
    modern.save(today(), folder / "today", BPE)
    conversation = {
        "messages": ("messages", [{"role": "user", "content": "the river?"}]),
        "system": ("text", "Be brief."),
        "answer": ("flag", True),
    }
    drawing = {
        "temperature": ("number", 1.0),
        "top_k": ("count", 3),
        "top_p": ("number", 0.5),
    }
    writing = {
        "model": ("model", gpt()),
        "prompt_ids": ("ids", IDS[:4]),
        "max_new_tokens": ("count0", 3),
        **drawing,
        "stop": ("stop", [1]),
        "seed": ("seed", 1),
        "use_cache": ("flag", True),
    }
    text, path, at = ("text", TEXT), ("path", folder / "new"), ("path", folder / "saved")
    model, ids, tok = ("model", gpt()), ("ids", IDS), ("tokenizer", TOKENIZER)
    heads = torch.ones(1, 2, 4, 8)
    q = ("floats", heads)
    return {
        "causal_mask": (llmkit.causal_mask, {"T": ("count0", 4), "device": ("device", "cpu")}),
        "attention": (
            llmkit.attention,
            {"q": q, "k": q, "v": q, "mask": ("floats", llmkit.causal_mask(4))},
        ),
        "attention_weights": (
            attention_weights,
            {"model": model, "ids": ("rows", ROWS), "masked": ("flag", True)},
        ),
        "CausalSelfAttention": (llmkit.CausalSelfAttention, {"config": ("config", CONFIG)}),
        "sinusoids": (sinusoids, {"T": ("count0", 4), "C": ("count", 8)}),
        "rotary": (rotary, {"x": q, "start": ("count0", 1)}),
        "Checkpointer": (
            llmkit.Checkpointer,
            {"folder": path, "tokenizer": tok, "every": ("count", 2)},
        ),
        "Sampler": (
            llmkit.Sampler,
            {"tokenizer": tok, "every": ("count", 2), "prompt": text, "tokens": ("count0", 3)},
        ),
        "checkpoint.save": (checkpoint.save, {"folder": path, "model": model, "tokenizer": tok}),
        "checkpoint.load": (checkpoint.load, {"folder": at, "device": ("device", "cpu")}),
        "checkpoint.load_state": (checkpoint.load_state, {"folder": at}),
        "checks.leaks_future": (checks.leaks_future, {"model": model}),
        "checks.mixes_batch": (checks.mixes_batch, {"model": model}),
        "checks.starts_uniform": (checks.starts_uniform, {"model": model}),
        "checks.overfits_batch": (checks.overfits_batch, {"model": model, "steps": ("count", 1)}),
        "checks.run": (checks.run, {"model": model}),
        "load_text": (llmkit.load_text, {"name": ("path", "embedded")}),
        "split": (llmkit.split, {"ids": ("sequence", IDS), "val_fraction": ("number", 0.1)}),
        "Batches": (
            llmkit.Batches,
            {
                "ids": ids,
                "block_size": ("count", 8),
                "batch_size": ("count", 2),
                "seed": ("seed", 1),
                "device": ("device", "cpu"),
                "rank": ("count0", 0),
                "world": ("count", 1),
            },
        ),
        "perplexity": (llmkit.perplexity, {"loss": ("loss", 1.0)}),
        "evaluate": (
            llmkit.evaluate,
            {
                "model": model,
                "ids": ids,
                "stride": ("count", 4),
                "characters": ("count", 9),
                "batch_size": ("count", 2),
            },
        ),
        "generate": (llmkit.generate, writing),
        "stream": (lambda **given: list(llmkit.stream(**given)), writing),
        "next_token_probabilities": (
            generation.next_token_probabilities,
            {"logits": ("floats", torch.ones(V)), **drawing},
        ),
        "GPTConfig": (
            llmkit.GPTConfig,
            {
                "vocab_size": ("count", 9),
                "block_size": ("count", 8),
                "n_layer": ("count", 1),
                "n_head": ("count", 2),
                "n_embd": ("count", 8),
                "dropout": ("number", 0.1),
                "bias": ("flag", True),
                "position": ("choice", "rotary"),
                "norm_first": ("flag", True),
                "activation": ("choice", "relu"),
                "tie_weights": ("flag", True),
            },
        ),
        "GPTConfig.gpt2": (llmkit.GPTConfig.gpt2, {"name": ("choice", "gpt2")}),
        "Block": (llmkit.Block, {"config": ("config", CONFIG)}),
        "GPT": (llmkit.GPT, {"config": ("config", CONFIG)}),
        "GPT.forward": (gpt(), {"ids": ("rows", ROWS)}),
        "GPT.loss": (gpt().loss, {"x": ("rows", ROWS), "y": ("rows", ROWS)}),
        "NGram": (
            llmkit.NGram,
            {
                "ids": ids,
                "order": ("count", 2),
                "vocab_size": ("count", V),
                "discount": ("number", 0.5),
            },
        ),
        "NGram.forward": (llmkit.NGram(IDS, 2, V), {"ids": ("any rows", ROWS)}),
        "NGram.probabilities": (llmkit.NGram(IDS, 2, V).probabilities, {"context": ids}),
        "NGram.loss": (llmkit.NGram(IDS, 2, V).loss, {"ids": ids}),
        "NeuralBigram": (llmkit.NeuralBigram, {"vocab_size": ("count", V)}),
        "NeuralBigram.forward": (llmkit.NeuralBigram(V), {"ids": ("rows", ROWS)}),
        "configure_optimizers": (
            optim.configure_optimizers,
            {
                "model": ("module", gpt()),
                "name": ("choice", "muon"),
                "learning_rate": ("number", 0.1),
                "weight_decay": ("number", 0.1),
                "adamw_share": ("number", 0.1),
            },
        ),
        "start": (llmkit.start, {"seed": ("seed", 1), "device": ("device", "cpu")}),
        "CharTokenizer": (
            llmkit.CharTokenizer,
            {"characters": ("characters", "abc"), "unknown": ("word", "?")},
        ),
        "CharTokenizer.from_text": (
            llmkit.CharTokenizer.from_text,
            {"text": text, "unknown": ("word", "?")},
        ),
        "CharTokenizer.encode": (TOKENIZER.encode, {"text": text}),
        "CharTokenizer.decode": (TOKENIZER.decode, {"ids": ids}),
        "CharTokenizer.save": (TOKENIZER.save, {"path": ("path", folder / "x.json")}),
        "CharTokenizer.load": (
            llmkit.CharTokenizer.load,
            {"path": ("path", folder / "tokenizer.json")},
        ),
        "tokenizer.load": (tokenizers.load, {"path": ("path", folder / "tokenizer.json")}),
        "WordTokenizer": (
            llmkit.WordTokenizer,
            {"tokens": ("characters", ["a", "b"]), "unknown": ("word", "?")},
        ),
        "WordTokenizer.from_text": (
            llmkit.WordTokenizer.from_text,
            {"text": text, "max_vocab": ("count", 5), "unknown": ("word", "?")},
        ),
        "WordTokenizer.encode": (WORDS.encode, {"text": text}),
        "WordTokenizer.decode": (WORDS.decode, {"ids": ("ids", IDS % 5)}),
        "TrainConfig": (
            llmkit.TrainConfig,
            {
                "steps": ("count", 9),
                "batch_size": ("count", 2),
                "gradient_accumulation_steps": ("count", 2),
                "optimizer": ("choice", "muon"),
                "learning_rate": ("number", 0.1),
                "adamw_share": ("number", 0.1),
                "schedule": ("choice", "linear"),
                "min_lr_ratio": ("number", 0.1),
                "warmup": ("count0", 1),
                "weight_decay": ("number", 0.1),
                "grad_clip": ("number", 0.1),
                "gradient_checkpointing": ("flag", True),
                "dtype": ("choice", "float32"),
                "eval_every": ("count", 2),
                "patience": ("count", 2),
                "keep_best": ("flag", True),
                "seed": ("seed", 2),
            },
        ),
        "train": (
            llmkit.train,
            {
                "model": model,
                "train_ids": ids,
                "val_ids": ids,
                "config": ("config", STEP),
                "callbacks": ("callbacks", []),
            },
        ),
        "BPETokenizer": (
            llmkit.BPETokenizer,
            {
                "merges": ("merges", [(b"a", b"b")]),
                "special_tokens": ("texts", ["<|x|>"]),
                "digits": ("flag", True),
            },
        ),
        "BPETokenizer.train": (
            llmkit.BPETokenizer.train,
            {"text": text, "vocab_size": ("count", 260), "special_tokens": ("texts", ["<|x|>"])},
        ),
        "BPETokenizer.first": (BPE.first, {"count": ("count0", 2)}),
        "BPETokenizer.encode": (
            BPE.encode,
            {"text": text, "allowed_special": ("texts", ["<|endoftext|>"])},
        ),
        "BPETokenizer.decode": (BPE.decode, {"ids": ids}),
        "BPETokenizer.gpt2": (llmkit.BPETokenizer.gpt2, {"folder": ("path", None)}),
        "BPETokenizer.from_huggingface": (
            llmkit.BPETokenizer.from_huggingface,
            {"path": ("path", folder / "bpe.json")},
        ),
        "BPETokenizer.save_huggingface": (
            BPE.save_huggingface,
            {"path": ("path", folder / "y.json")},
        ),
        "instructions.load": (instructions.load, {"path": ("path", None)}),
        "instructions.encode": (
            instructions.encode,
            {"item": ("item", ITEM), "tokenizer": tok, "answer_only": ("flag", True)},
        ),
        "instructions.pad": (
            instructions.pad,
            {"examples": ("examples", [EXAMPLE]), "block_size": ("count", 32)},
        ),
        "instructions.pack": (
            instructions.pack,
            {"examples": ("examples", [EXAMPLE]), "block_size": ("count", 32), "seed": ("seed", 1)},
        ),
        "instructions.answer": (
            instructions.answer,
            {
                "model": model,
                "tokenizer": tok,
                "items": ("items", [ITEM]),
                "max_new_tokens": ("count0", 3),
            },
        ),
        "instructions.exact_match": (
            instructions.exact_match,
            {"items": ("items", [ITEM]), "answers": ("texts", ["cold"])},
        ),
        "ExampleDataset": (instructions.ExampleDataset, {"x": ("rows", ROWS), "y": ("rows", ROWS)}),
        "lora.apply": (
            lambda model, **more: lora.apply(model if model is not model0 else gpt(), **more),
            {
                "model": ("module", model0),
                "rank": ("count", 2),
                "alpha": ("number", 2.0),
                "targets": ("texts", ["c_attn"]),
                "dropout": ("number", 0.1),
            },
        ),
        **{
            f"lora.{do.__name__}": (
                partial(on_adapted, do),
                {"model": ("module", model0)},
            )
            for do in (lora.adapters, lora.trainable, lora.merge, lora.unmerge, lora.remove)
        },
        "lora.save": (
            lora.save,
            {"path": ("path", folder / "z.safetensors"), "model": ("module", adapted())},
        ),
        "lora.load": (
            lora.load,
            {"path": ("path", folder / "adapter.safetensors"), "model": ("module", gpt())},
        ),
        "load_gpt2": (pretrained.load_gpt2, {"name_or_folder": ("path", folder / "gpt2")}),
        "save_gpt2": (
            pretrained.save_gpt2,
            {
                "model": ("model", gpt(vocab_size=BPE.vocab_size)),
                "folder": ("path", folder / "gpt2b"),
                "tokenizer": ("tokenizer", BPE),
            },
        ),
        "from_gpt2": (
            gpt2.from_gpt2,
            {
                "tensors": ("tensors", gpt2.to_gpt2(gpt())),
                "config": ("config", CONFIG),
                "vocab_size": ("count", V),
            },
        ),
        "to_gpt2": (gpt2.to_gpt2, {"model": model}),
        "ChatTemplate": (
            chat.ChatTemplate,
            {"before": text, "after": text, "between": text, "names": ("names", {"user": "Q"})},
        ),
        "ChatTemplate.text": (
            chat.PLAIN.text,
            {"messages": ("messages", CHAT), "add_generation_prompt": ("flag", True)},
        ),
        "ChatTemplate.encode": (
            chat.PLAIN.encode,
            {"messages": ("messages", CHAT), "tokenizer": tok},
        ),
        "answers.draw": (
            answers.draw,
            {
                "model": model,
                "tokenizer": tok,
                "items": ("items", [SHORT]),
                "count": ("count", 2),
                "max_new_tokens": ("count", 3),
                "temperature": ("number", 1.0),
                "form": ("callable", instructions.encode),
            },
        ),
        "dpo.train": (
            dpo.train,
            {
                "model": model,
                "tokenizer": tok,
                "pairs": ("pairs", [dpo.Pair(SHORT, "cold", "was")]),
                "steps": ("count", 1),
                "batch_size": ("count", 2),
                "learning_rate": ("number", 0.001),
                "optimizer": ("choice", "adamw"),
                "beta": ("number", 0.1),
                "seed": ("seed", 1),
                "form": ("callable", instructions.encode),
            },
        ),
        "grpo.train": (
            grpo.train,
            {
                "model": model,
                "tokenizer": tok,
                "items": ("items", [SHORT]),
                "reward": ("callable", lambda item, answer: len(answer)),
                "steps": ("count", 1),
                "prompts": ("count", 2),
                "answers": ("count", 2),
                "max_new_tokens": ("count", 3),
                "learning_rate": ("number", 0.001),
                "optimizer": ("choice", "adamw"),
                "beta": ("number", 0.1),
                "seed": ("seed", 1),
                "callback": ("callable", print),
                "form": ("callable", instructions.encode),
            },
        ),
        "ModernConfig": (
            modern.ModernConfig,
            {
                "vocab_size": ("count", 9),
                "block_size": ("count", 8),
                "n_layer": ("count", 1),
                "n_head": ("count", 2),
                "n_embd": ("count", 8),
                "n_kv_head": ("count0", 1),
                "head_size": ("count0", 4),
                "n_inner": ("count0", 8),
                "norm": ("choice", "rms"),
                "activation": ("choice", "gelu"),
                "rope_base": ("number", 10.0),
                "qk_norm": ("flag", True),
                "window": ("count0", 3),
                "n_expert": ("count0", 3),
                "n_active": ("count", 1),
                "tie_weights": ("flag", True),
                "norm_eps": ("number", 1e-5),
            },
        ),
        "Modern": (modern.Modern, {"config": ("config", today().config)}),
        "Modern.forward": (today(), {"ids": ("rows", ROWS)}),
        "Modern.loss": (today().loss, {"x": ("rows", ROWS), "y": ("rows", ROWS)}),
        "folders.load": (modern.load, {"folder": ("path", folder / "today")}),
        "folders.save": (
            modern.save,
            {
                "model": ("module", today()),
                "folder": ("path", folder / "todayb"),
                "tokenizer": ("tokenizer", BPE),
                "file_bytes": ("count", 10**9),
            },
        ),
        "chatml.render": (chatml.render, conversation),
        "chatml.encode": (chatml.encode, {**conversation, "tokenizer": ("tokenizer", CHATTY)}),
        "chatml.check": (chatml.check, {"messages": conversation["messages"]}),
        "chatml.default_system": (chatml.default_system, {"folder": ("path", folder)}),
        "Rater": (Rater, {"pairs": ("pairs", [("a", "b")]), "options": ("texts", ["good"])}),
        "save_onnx": (
            export.save_onnx,
            {"folder": path, "model": ("model", model0), "tokenizer": tok},
        ),
        "save_int8": (
            export.save_int8,
            {"folder": ("path", folder / "int8"), "model": model, "tokenizer": tok},
        ),
        "export.load": (export.load, {"folder": at, "device": ("device", "cpu")}),
        "export.file_bytes": (export.file_bytes, {"folder": at}),
        "export.measure": (
            export.measure,
            {"model": model, "ids": ids, "seconds": ("number", 0.001)},
        ),
        "to_int8": (int8.to_int8, {"model": model}),
        "linear_bytes": (int8.linear_bytes, {"model": ("module", gpt())}),
        "write_onnx": (
            onnx.write_onnx,
            {"model": ("model", model0), "path": ("path", folder / "m.onnx")},
        ),
        "TextStream": (text_stream.TextStream, {"tokenizer": tok, "stop": ("texts", ["a"])}),
        "Engine": (
            lambda **given: engine.Engine(**given).close(0),
            {"model": model, "tokenizer": tok, "queue": ("count", 2), "timeout": ("number", 2.0)},
        ),
        "Settings": (
            server.Settings,
            {
                "name": text,
                "queue": ("count", 2),
                "max_prompt": ("count", 2),
                "max_tokens": ("count", 2),
                "max_choices": ("count", 2),
                "max_body": ("count", 2),
                "timeout": ("number", 2.0),
                "grace": ("number", 2.0),
                "api_key": ("text", "k"),
            },
        ),
        "create_app": (
            lambda **given: server.create_app(**given).state.engine.close(0),
            {"model": model, "tokenizer": tok},
        ),
        "trial.wait_until": (
            trial.wait_until,
            {"condition": ("callable", lambda: True), "seconds": ("number", 0.1)},
        ),
        "trial.send": (lambda url: trial.send(url) if url != "ok" else 0, {"url": ("text", "ok")}),
    }


OPTIONAL = {  # None is no wrong value of these, wherever or in the call that is named
    *("device", "top_k", "top_p", "stop", "mask", "stride", "characters of evaluate", "dtype"),
    *("batch_size of evaluate", "learning_rate", "adamw_share", "schedule", "min_lr_ratio"),
    *("warmup", "eval_every", "patience", "discount", "unknown", "max_vocab", "val_ids", "api_key"),
    *("seed of generate", "seed of stream", "vocab_size of from_gpt2", "ids of export.measure"),
    *("path of instructions.load", "tokenizer of Checkpointer", "tokenizer of checkpoint.save"),
    *("tokenizer of save_gpt2", "tokenizer of save_onnx", "tokenizer of save_int8"),
    *("tokenizer of folders.save", "system of chatml.render", "system of chatml.encode"),
    "callback of grpo.train",
}
# Their good calls take long, or need files of others: other tests make them.
NOT_CALLED = {"save_onnx", "write_onnx", "BPETokenizer.gpt2"}
# What readers do not call: parts of the entry points, which hand on what these have checked; what
# files say, which tests/test_fuzz.py changes; pictures and views: `picture.as_array` checks those.
INSIDE = """
attention: causal_attention rotary_table rotate KVCache
callbacks: ProgressBar
checkpoint: plain build check outline
checks: CheckResult
data: Corpus corpora strip_gutenberg packaged as_tensor check_ids check_rows fingerprint Draws
evaluation: Report token_losses fitting_batch windows eval_mode device_of vocab_size_of unwrapped
folders: Kind write_folder steady read_header read_file load_tokenizer write_tensors previous
generation: fitting sample
model: MLP gradient_checkpointing
ngram: NGramConfig Counts estimate_discounts
optim: Muon orthogonalised hidden_matrices lr_schedule set_learning_rate clip_gradient
runtime: Runtime find_device seeded default_dtype multiplies_bfloat16 capabilities Loss PeerLost
    OneProcess seed_dropout read_later interruptible
tokenizer: BaseTokenizer VocabularyTokenizer from_json
train_config: History describe refuse_another_run
training: Trainer
bpe.long_words: LongWords
bpe.training: learn_merges replace_pair
deploy.batch: Batch Row
deploy.engine: Unavailable Request Piece Job
deploy.export: find Measured
deploy.int8: Int8Embedding check is_int8 tensors from_tensors quiet
deploy.onnx: OnnxModel
deploy.text_stream: end_of_text
deploy.trial: arrivals
finetune.chatml: can_chat
finetune.folder: read_config read_weights read_tokenizer check_vocabulary write_tokenizer
    write_json end_of_text
finetune.gpt2: turn config_from_gpt2 config_to_gpt2
finetune.instructions: Item ExampleBatches
finetune.lora: LoRALinear
finetune.manual: python_manual
finetune.quiet: quietly import_transformers
modern.decoding: quick ModernDecoder
modern.fetching: place bring check_sum whole
modern.folders: from_theirs to_theirs family_of config_from_theirs config_to_theirs
modern.gguf: library read build
modern.smollm2: place fetched fetch download unpack
preferences.answers: log_probs divergence openings read as_rows kl_from
preferences.dpo: Pair dpo_loss
preferences.grpo: advantages grpo_loss score History
preferences.update: update
modern.model: new_norm WindowCache GroupedAttention FeedForward Experts ModernBlock
"""
WHOLE = (
    "__main__",
    "arguments",
    "files",
    "picture",
    "plots",
    "widgets",
    "bpe.files",
    "bpe.widgets",
)


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> dict[str, Call]:
    return table(tmp_path_factory.mktemp("arguments"))


@cache
def raises(path: str) -> list[range]:
    """The lines of each `raise` in a file."""
    nodes = ast.walk(ast.parse(Path(path).read_text("utf-8")))
    return [range(n.lineno, n.end_lineno + 1) for n in nodes if isinstance(n, ast.Raise)]


def fault(call: Any, arguments: dict[str, Any], name: str) -> str | None:
    """What is wrong with how a wrong argument is answered; None where nothing is."""
    try:
        call(**arguments)
    except (ValueError, TypeError) as error:
        [*_, last] = traceback.extract_tb(error.__traceback__)
        own = Path(last.filename).is_relative_to(PACKAGE)
        if not own or not any(last.lineno in lines for lines in raises(last.filename)):
            return f"{type(error).__name__} from inside: {error}"
        if "\n" in str(error):
            return f"more than a line: {error}"
        return None if re.search(rf"\b{name}\b", str(error)) else f"does not name it: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "taken in silence"


def test_a_wrong_argument_is_told_in_a_sentence_that_names_it(calls):
    found, tried = [], 0
    for entry, (call, arguments) in calls.items():
        good = {name: value for name, (_, value) in arguments.items()}
        if entry not in NOT_CALLED:
            call(**good)  # so that what follows is wrong for one reason
        for name, (kind, _) in arguments.items():
            optional = not OPTIONAL.isdisjoint({name, f"{name} of {entry}"})
            for wrong in [value for value in WRONG[kind] if not (value is None and optional)]:
                tried += 1
                if said := fault(call, {**good, name: wrong}, name):
                    found.append(f"{entry}({name}={wrong!r}): {said}")
    assert found == []
    assert tried > 2000


def test_a_fault_is_found():
    assert fault(lambda seed: 1, {"seed": None}, "seed") == "taken in silence"
    assert "from inside" in fault(torch.Generator().set_state, {"new_state": 1}, "new_state")
    assert "does not name it" in fault(TOKENIZER.decode, {"ids": [999]}, "tokens")
    assert "AttributeError" in fault(lambda model: model.config, {"model": 1}, "model")


def test_every_entry_point_is_in_the_table(calls):
    """A new public name of these modules is in the table, or among what readers do not call."""
    known = {name for entry in calls for name in (entry, entry.split(".")[0])}
    inside = dict(line.split(": ") for line in INSIDE.replace("\n    ", " ").strip().split("\n"))
    missing = []
    for path, tree in api_page.TREES.items():
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        folder, _, module = name.rpartition(".")
        if folder not in FOLDERS or name in WHOLE:
            continue
        for node in api_page.public(tree.body):
            called = {node.name, f"{module}.{node.name}"} & known
            if not called and node.name not in inside.get(name, "").split():
                missing.append(f"{name}.{node.name}")
    assert missing == []


def test_an_environment_variable_is_told_too(monkeypatch):
    monkeypatch.setenv("LLMKIT_DEVICE", "nowhere")
    with pytest.raises(ValueError, match="cannot use the device 'nowhere' here"):
        llmkit.start()


HEAVY = ("torchao", "onnx", "onnxscript", "onnxruntime", "datasets", "pyarrow", "huggingface_hub")
HEAVY += ("transformers", "fastapi", "uvicorn", "pydantic", "starlette")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda folder: int8.to_int8(nn.Linear(2, 2)), "must be llmkit's GPT"),
        (lambda folder: export.save_int8(folder / "x", gpt(), "no"), "tokenizer must be"),
        (lambda folder: export.save_onnx(folder / "x", gpt(), "no"), "tokenizer must be"),
        (lambda folder: onnx.write_onnx(nn.Linear(2, 2), folder / "x"), "must be llmkit's GPT"),
        (lambda folder: onnx.write_onnx(gpt(), 3), "path must be"),
        (lambda folder: onnx.OnnxModel(folder / "x", CONFIG), "there is no file"),
        (lambda folder: onnx.OnnxModel(__file__, None), "config must be"),
        (lambda folder: export.load(folder / "x"), "there is no checkpoint"),
        (lambda folder: pretrained.load_gpt2(folder / "gpt3"), "there is no folder"),
        (lambda folder: token_file.write(folder, "x", BPE), "is a folder"),
        (lambda folder: token_file.write(folder / "a", folder / "x", BPE), "there is no file"),
        (lambda folder: token_file.write(folder / "a", 3, BPE), "write takes"),
        (lambda folder: serve.load(folder / "x", "cpu"), "there is no checkpoint"),
    ],
)
def test_a_wrong_argument_is_told_before_a_library_is_imported(call, told, tmp_path, monkeypatch):
    """Nobody installs a library, or waits for one, to be told of a wrong name."""
    for name in list(sys.modules):
        if name.split(".")[0] in HEAVY:
            monkeypatch.delitem(sys.modules, name)
    for name in HEAVY:
        monkeypatch.setitem(sys.modules, name, None)  # importing it is an ImportError now
    with pytest.raises((ValueError, TypeError, OSError), match=told):
        call(tmp_path)


def test_the_server_is_imported_once_its_folder_is_known(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "llmkit.deploy.server", None)
    monkeypatch.delattr(llmkit.deploy, "server")
    assert main(["serve", str(tmp_path / "x"), "--device", "cpu"]) == 2
    assert "there is no checkpoint in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: optim.configure_optimizers(gpt(), adamw_share=0.5), "adamw_share is Muon's"),
        (
            lambda: llmkit.train(gpt(), IDS, config=replace(STEP, adamw_share=0.5)),
            "adamw_share is Muon's",
        ),
        (lambda: llmkit.train(gpt(), IDS, config=replace(STEP, keep_best=True)), "go by val_ids"),
        (lambda: llmkit.train(gpt(), IDS, config=replace(STEP, patience=2)), "go by val_ids"),
        (lambda: llmkit.TrainConfig(steps=5, warmup=6), "warmup must be from 0 to 5"),
        (lambda: llmkit.GPTConfig(9, 8, n_head=3, n_embd=8), "n_embd 8 must be a multiple"),
        (lambda: llmkit.WordTokenizer.from_text(TEXT, 1, "<unk>"), "max_vocab must be"),
        (lambda: lora.apply(adapted()), "has an adapter already"),
        (
            lambda: generation.generate(gpt(), IDS[:3], 2, top_k=V + 1),
            f"top_k must be from 1 to {V}",
        ),
    ],
)
def test_two_arguments_that_cannot_both_hold_are_refused(call, told):
    with pytest.raises(ValueError, match=told):
        call()


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--corpus", "embedded", "--text", "a.txt"],
        ["train", "--resume", "--overwrite"],
        ["evaluate", "runs/x", "--corpus", "embedded", "--text", "a.txt"],
        ["export", "runs/x", "--onnx", "--corpus", "embedded", "--text", "a.txt"],
    ],
)
def test_two_options_that_cannot_both_hold_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert "not allowed with argument" in capsys.readouterr().err
