"""Batches a second: llmkit.Batches against the textbook's ways to cut windows out of a text.

    python benchmarks/batches.py

Peers: slices of a uint16 memory map, stacked one by one (as nanoGPT does it); PyTorch's DataLoader
over a data set of windows, with 0 and 2 workers; the same over a text that is encoded again for
each item. All give x and y, (B, T) int64 each, from random places of the same text. In turns.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import common
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

import llmkit
from llmkit import plots

SHAPES = [(12, 64), (64, 256)]  # B, T
Batch = tuple[Tensor, Tensor]


class Windows(Dataset):
    """Every window of the tokens, encoded once."""

    def __init__(self, ids: Tensor, T: int) -> None:
        self.ids, self.T = ids, T

    def __len__(self) -> int:
        return len(self.ids) - self.T

    def __getitem__(self, i: int) -> Batch:
        return self.ids[i : i + self.T], self.ids[i + 1 : i + 1 + self.T]


class Reencoded(Windows):
    """Every window of a text, encoded whenever it is asked for."""

    def __init__(self, text: str, T: int) -> None:
        self.text, self.T = text, T
        self.stoi = {character: i for i, character in enumerate(sorted(set(text)))}

    def __len__(self) -> int:
        return len(self.text) - self.T

    def __getitem__(self, i: int) -> Batch:
        window = [self.stoi[character] for character in self.text[i : i + self.T + 1]]
        return torch.tensor(window[:-1]), torch.tensor(window[1:])


def stacked(path: Path, B: int, T: int) -> Iterator[Batch]:
    """Slices of a memory map of uint16, one by one."""
    tokens = np.memmap(path, dtype=np.uint16, mode="r")
    while True:
        starts = torch.randint(len(tokens) - T, (B,))
        x = [torch.from_numpy(tokens[i : i + T].astype(np.int64)) for i in starts]
        y = [torch.from_numpy(tokens[i + 1 : i + 1 + T].astype(np.int64)) for i in starts]
        yield torch.stack(x), torch.stack(y)


def loader(data: Dataset, B: int, workers: int = 0) -> Iterator[Batch]:
    sampler = RandomSampler(data, replacement=True, num_samples=10**9)
    return iter(DataLoader(data, batch_size=B, sampler=sampler, num_workers=workers))


def contenders(text: str, ids: Tensor, path: Path, B: int, T: int) -> dict[str, Iterator[Batch]]:
    return {
        "llmkit.Batches": llmkit.Batches(ids, T, B),
        "stacked slices of a memory map": stacked(path, B, T),
        "DataLoader": loader(Windows(ids, T), B),
        "DataLoader, 2 workers": loader(Windows(ids, T), B, workers=2),
        "DataLoader, encoding each item": loader(Reencoded(text, T), B),
    }


def seconds_per_batch(batches: Iterator[Batch], seconds: float) -> float:
    """Draw batches for so long, and at least one."""
    started, count = time.perf_counter(), 0
    while (now := time.perf_counter()) - started < seconds or not count:
        x, y = next(batches)
        count += 1
    assert x.dtype == y.dtype == torch.int64
    assert torch.equal(x[:, 1:], y[:, :-1])
    return (now - started) / count


def measure(text: str, ids: Tensor, B: int, T: int, options) -> list[dict]:
    """All contenders at one shape: a row for each peer."""
    seconds, rounds = (0.02, 1) if options.quick else (0.5, 5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokens.bin")
        ids.numpy().astype(np.uint16).tofile(path)
        ways = contenders(text, ids, path, B, T)
        turns = [partial(seconds_per_batch, way, seconds) for way in ways.values()]
        times = dict(zip(ways, common.alternate(*turns, repeats=rounds, clock=None), strict=True))
    ours, rows = times.pop("llmkit.Batches"), []
    for name, taken in times.items():
        row = common.compare(ours, taken)
        row |= {"ours": 1 / row["ours"], "peer": 1 / row["peer"]}  # batches a second
        rows.append({"shape": [B, T], "peer_name": name} | row)
        speeds = f"{row['ours']:10,.0f} {row['peer']:10,.0f} batches/s  {row['ratio']:6.1f}x"
        print(f"({B:>2}, {T:>3})  {name:<32} {speeds}")
    return rows


def main() -> None:
    options = common.parse(common.parser(__doc__, device=False))
    text = llmkit.load_text("embedded")
    ids = llmkit.CharTokenizer.from_text(text).encode(text)
    rows = [row for B, T in SHAPES for row in measure(text, ids, B, T, options)]
    last = [row for row in rows if row["shape"] == list(SHAPES[-1])]
    speeds = {"llmkit.Batches": last[0]["ours"]} | {r["peer_name"]: r["peer"] for r in last}
    B, T = SHAPES[-1]
    picture = plots.bars(
        list(speeds),
        list(speeds.values()),
        f"Drawing batches of {B} windows of {T} tokens",
        xlabel="batches per second",
        highlight="llmkit.Batches",
        fmt="{:,.0f}",
    )
    nearest = max(rows, key=lambda row: row["peer"] / row["ours"])
    result = {key: nearest[key] for key in ("ours", "peer", "ratio", "peer_name", "shape")}
    result |= {"unit": "batches per second, where the nearest peer is nearest", "results": rows}
    result["versions"] = common.versions("numpy")
    common.write_result("batches", "cpu", result, picture, options.out)


if __name__ == "__main__":
    main()
