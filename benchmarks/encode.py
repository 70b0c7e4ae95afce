"""How fast CharTokenizer encodes and decodes 10 MB, beside the comprehensions of the tutorials.

    python benchmarks/encode.py

prints medians and ratios and writes them to benchmarks/results/encode-cpu.json. Two peers for
encoding: the list comprehension alone, and the same list made into the LongTensor that `encode`
returns and that a model needs. One thread does all the work, whatever OMP_NUM_THREADS says.
"""

from __future__ import annotations

import random
import statistics
import time

import torch
from common import alternate, parse, parser, versions, write_result

from llmkit import CharTokenizer, load_text

MEGABYTES = 10
SCRIPTS = {  # where the letters are, and roughly how many a text in that script uses
    "Latin": (0x61, 26),
    "accented Latin": (0xE0, 60),
    "Greek": (0x3B1, 25),
    "Cyrillic": (0x430, 32),
    "Hebrew": (0x5D0, 27),
    "Arabic": (0x627, 36),
    "Devanagari": (0x905, 50),
    "Hiragana": (0x3041, 83),
    "Chinese": (0x4E00, 4000),
    "Hangul": (0xAC00, 1500),
    "emoji": (0x1F300, 500),
}


def cut(text: str) -> str:
    """`text`, repeated or shortened to MEGABYTES of UTF-8."""
    size = round(MEGABYTES * 1_000_000)
    text *= size // len(text.encode()) + 1
    return text.encode()[:size].decode(errors="ignore")


def ascii_text() -> str:
    return cut(load_text("embedded"))


def mixed_text() -> str:
    """Words of many scripts; within each script the n-th letter comes with weight 1/n (Zipf)."""
    draw, words = random.Random(0), []
    letters = {
        name: draw.choices(
            [chr(first + i) for i in range(count)], [1 / (i + 1) for i in range(count)], k=200_000
        )
        for name, (first, count) in SCRIPTS.items()
    }
    for _ in range(400_000):
        pool, start = letters[draw.choice(list(SCRIPTS))], draw.randrange(199_990)
        words.append("".join(pool[start : start + draw.randint(1, 9)]))
    return cut(" ".join(words))


def medians(*functions, rounds: int = 9) -> list[float]:
    """Processor seconds of each, warm, taken in turns: other programs blur neither of them."""
    times = alternate(*functions, repeats=rounds, clock=time.process_time)
    return [statistics.median(taken) for taken in times]


def measure(kind: str, text: str) -> list[dict]:
    tokenizer = CharTokenizer.from_text(text)
    stoi = {character: i for i, character in enumerate(tokenizer.characters)}
    itos = dict(enumerate(tokenizer.characters))
    ids = tokenizer.encode(text)
    assert ids.tolist() == [stoi[c] for c in text]
    assert tokenizer.decode(ids) == text
    jobs = {
        "encode, peer: [stoi[c] for c in text]": (
            lambda: tokenizer.encode(text),
            lambda: [stoi[c] for c in text],
        ),
        "encode, peer: torch.tensor([stoi[c] for c in text])": (
            lambda: tokenizer.encode(text),
            lambda: torch.tensor([stoi[c] for c in text]),
        ),
        "decode, peer: ''.join([itos[i] for i in ids.tolist()])": (
            lambda: tokenizer.decode(ids),
            lambda: "".join([itos[i] for i in ids.tolist()]),
        ),
    }
    results = []
    for job, pair in jobs.items():
        ours, peer = medians(*pair)
        result = {
            "what": f"{kind}, {job}",
            "characters": len(text),
            "distinct_characters": tokenizer.vocab_size,
            "ours_seconds": round(ours, 5),
            "peer_seconds": round(peer, 5),
            "ours_megabytes_per_second": round(MEGABYTES / ours),
            "ratio": round(peer / ours, 1),
        }
        results.append(result)
        speed = f"{ours * 1e3:7.1f} ms {peer * 1e3:7.1f} ms {peer / ours:6.1f}×"
        print(f"{result['what']:<72} {speed}")
    return results


def main() -> None:
    global MEGABYTES
    options = parse(parser(__doc__, device=False))
    if options.quick:
        MEGABYTES = 0.1
    torch.set_num_threads(1)
    results = [*measure("ASCII", ascii_text()), *measure("mixed Unicode", mixed_text())]
    result = {"results": results, "versions": versions("numpy")}
    write_result("encode", "cpu", result, folder=options.out)


if __name__ == "__main__":
    main()
