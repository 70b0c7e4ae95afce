"""How fast BPETokenizer learns merges and encodes, beside tokenizers and tiktoken.

    python benchmarks/bpe.py --text tiny_shakespeare --gpt2 FOLDER

encodes a megabyte of that text and one of mixed Unicode with GPT-2's merges (without --gpt2: with
1,000 merges learned from the text), learns 1,000 merges from a megabyte, checks that all give the
same, prints medians and writes them to benchmarks/results/bpe-cpu.json. Peers, where installed:
`pip install tiktoken tokenizers`, both compiled from Rust. Processor time, one thread. `first` is
the speed of a tokenizer that has met no word yet, `again` that of one that has met them all.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"  # tokenizers' threads; read when it is imported

import encode as characters
import torch
from common import alternate, parse, parser, versions, write_result

from llmkit import BPETokenizer, load_text
from llmkit.bpe.files import huggingface_fields, spell
from llmkit.bpe.tokenizer import PATTERN

MERGES = 1000


def timed(function: Callable[[], Any]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def peers(tokenizer: BPETokenizer) -> dict[str, Callable[[str], list[int]]]:
    """The same merges in the hands of others."""
    found: dict[str, Callable[[str], list[int]]] = {}
    if importlib.util.find_spec("tiktoken"):
        import tiktoken

        special = tokenizer.special_tokens
        ranks = {t: i for i, t in enumerate(tokenizer.tokens) if i not in special.values()}
        encoding = tiktoken.Encoding(
            "x", pat_str=PATTERN.pattern, mergeable_ranks=ranks, special_tokens=special
        )
        found["tiktoken"] = encoding.encode_ordinary
    if importlib.util.find_spec("tokenizers"):
        import tokenizers

        fields = huggingface_fields(tokenizer.merges, tokenizer.tokens, tokenizer.special_tokens)
        theirs = tokenizers.Tokenizer.from_str(json.dumps(fields))
        found["tokenizers"] = lambda text: theirs.encode(text).ids
    return found


def measure_encoding(kind: str, text: str, tokenizer: BPETokenizer, repeats: int) -> list[dict]:
    others, ids = peers(tokenizer), tokenizer.encode(text).tolist()
    for name, peer in others.items():
        assert peer(text) == ids, f"{name} has other ids"

    def first() -> float:
        fresh = copy.copy(tokenizer)  # without the words that the other knows
        return timed(lambda: fresh.encode(text))

    jobs = {"llmkit, first": first, "llmkit, again": lambda: timed(lambda: tokenizer.encode(text))}
    for name, peer in others.items():
        jobs[name] = lambda peer=peer: timed(lambda: peer(text))
    return report(f"encode {kind}", text, jobs, repeats, tokens=len(ids))


def measure_training(text: str, repeats: int) -> list[dict]:
    size = 256 + MERGES
    jobs = {"llmkit": lambda: timed(lambda: BPETokenizer.train(text, size))}
    if importlib.util.find_spec("tokenizers"):
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        def theirs() -> Tokenizer:
            reference = Tokenizer(models.BPE())
            reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(
                vocab_size=size, initial_alphabet=alphabet, show_progress=False
            )
            reference.train_from_iterator([text], trainer)
            return reference

        merges = json.loads(theirs().to_str())["model"]["merges"]
        ours = BPETokenizer.train(text, size).merges
        assert merges == [[spell(left), spell(right)] for left, right in ours]
        jobs["tokenizers"] = lambda: timed(theirs)
    return report(f"learn {MERGES:,} merges", text, jobs, repeats)


def report(what: str, text: str, jobs: dict, repeats: int, **more: Any) -> list[dict]:
    """Run the jobs in turns; print and return what each took."""
    size, results = len(text.encode()), []
    for name, times in zip(
        jobs, alternate(*jobs.values(), repeats=repeats, clock=None), strict=True
    ):
        seconds = statistics.median(times)
        speed = size / 1e6 / max(seconds, 1e-9)
        about = {
            "bytes": size,
            "seconds": round(seconds, 4),
            "megabytes_per_second": round(speed, 2),
        }
        results.append({"what": what, "who": name, **about, **more})
        print(f"{what:<24} {name:<14} {seconds:8.3f} s {speed:8.2f} MB/s")
    return results


def main() -> None:
    global MERGES
    options = parser(__doc__, device=False)
    options.add_argument("--text", default="embedded", help="a corpus of load_text, or a file")
    options.add_argument("--gpt2", metavar="PATH", help="a folder with encoder.json and vocab.bpe")
    options = parse(options)
    characters.MEGABYTES = 0.02 if options.quick else 1
    MERGES = 20 if options.quick else MERGES
    repeats = 1 if options.quick else 5
    torch.set_num_threads(1)
    text = characters.cut(load_text(options.text))
    gpt2 = BPETokenizer.gpt2(options.gpt2) if options.gpt2 else None
    tokenizer = gpt2 or BPETokenizer.train(text, 256 + MERGES)
    results = measure_training(text, repeats)
    for kind, sample in {"the text": text, "mixed Unicode": characters.mixed_text()}.items():
        results += measure_encoding(kind, sample, tokenizer, repeats)
    result = {
        "text": options.text,
        "vocabulary": "GPT-2's" if gpt2 else f"{MERGES} merges of the text",
        "results": results,
        "versions": versions("numpy", "regex", "tiktoken", "tokenizers"),
    }
    write_result("bpe", "cpu", result, folder=options.out)


if __name__ == "__main__":
    main()
