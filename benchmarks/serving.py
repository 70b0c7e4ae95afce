"""Requests to `python -m llmkit serve`: how many a second, how long they take, what HTTP adds.

    python benchmarks/serving.py [--device cuda] [--quick]

A model of 0.8 M parameters with new weights, a prompt of 16 characters and 64 to draw, asked for by
1, 4 and 16 clients at once, each coming again as soon as it has its answer. The server is a process
of its own, the clients threads of this one, on the same cores. Two peers: a server that draws one
text after the other (`--batch 1`), asked in turns with the first; and `llmkit.stream`, called
without a server, in turns with one client. The queue has room for all: nobody is told to come
again. Times are in seconds; "first" is to the first token, "token" between two, "total" to the
last; "cpu" is what the server's process took for an answer.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import common
import psutil
import torch

import llmkit
from llmkit import checkpoint, plots

SHAPE = {"block_size": 256, "n_layer": 4, "n_head": 4, "n_embd": 128}
CHARACTERS = "".join(map(chr, range(32, 97)))  # 65
PROMPT, NEW, CLIENTS = "TO BE OR NOT TO ", 64, (1, 4, 16)
BATCHES = (16, 1)  # ours, and one text after the other
Times = dict[str, float]


@contextmanager
def server(folder: Path, device: str, batch: int) -> Iterator[tuple[str, psutil.Process]]:
    """The command in a process of its own: its address, and the process."""
    command = [sys.executable, "-m", "llmkit", "serve", str(folder), "--port", "0"]
    command += ["--batch", str(batch)]
    process = subprocess.Popen([*command, "--device", device], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().split()[3], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.communicate()


class Client:
    """One connection, kept."""

    def __init__(self, url: str):
        at = urlsplit(url)
        self.connection = http.client.HTTPConnection(at.hostname, at.port)

    def post(self, body: dict[str, Any]) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"}
        self.connection.request("POST", "/generate", json.dumps(body), headers)
        response = self.connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {response.read()!r}")
        return response

    def whole(self, seed: int) -> Times:
        started = time.perf_counter()
        self.post({"prompt": PROMPT, "max_new_tokens": NEW, "seed": seed}).read()
        return {"total": time.perf_counter() - started}

    def streamed(self, seed: int) -> Times:
        started, first = time.perf_counter(), None
        body = {"prompt": PROMPT, "max_new_tokens": NEW, "seed": seed, "stream": True}
        response = self.post(body)
        while response.read1():  # what has come; a line's reader would wait for a full buffer
            first = first or time.perf_counter()
        ended = time.perf_counter()
        return {
            "first": first - started,
            "token": (ended - first) / (NEW - 1),
            "total": ended - started,
        }


def direct(model: llmkit.GPT, ids: torch.Tensor, seed: int) -> Times:
    started, first = time.perf_counter(), None
    for _ in llmkit.stream(model, ids, NEW, seed=seed):
        first = first or time.perf_counter()
    ended = time.perf_counter()
    return {
        "first": first - started,
        "token": (ended - first) / (NEW - 1),
        "total": ended - started,
    }


def spread(times: list[Times]) -> dict[str, dict[str, float]]:
    """Median and 99th percentile of each kind of time."""
    quantiles = {k: statistics.quantiles([t[k] for t in times], n=100) for k in times[0]}
    return {k: {"p50": q[49], "p99": q[98]} for k, q in quantiles.items()}


def at_once(url: str, process: psutil.Process, clients: int, requests: int) -> list[Any]:
    """So many clients, and requests in all: their times, seconds in all and of the processor."""

    def one(number: int) -> list[Times]:
        client = Client(url)
        return [client.streamed(number + 100 * i) for i in range(requests // clients)]

    busy, started = sum(process.cpu_times()[:2]), time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = [each for found in pool.map(one, range(clients)) for each in found]
    return [times, time.perf_counter() - started, sum(process.cpu_times()[:2]) - busy]


def row_of(batch: int, clients: int, rounds: list[list[Any]]) -> dict[str, Any]:
    """Several rounds in figures."""
    times = [each for found, _, _ in rounds for each in found]
    taken, busy = (sum(found[i] for found in rounds) for i in (1, 2))
    row = {"batch": batch, "clients": clients, "requests": len(times)}
    row |= {"requests_per_second": len(times) / taken, "cpu": busy / len(times)}
    row |= {"tokens_per_second": NEW * len(times) / taken} | spread(times)
    print(
        f"batch {batch:>2}, {clients:>2} clients: {row['requests_per_second']:.1f} requests/s, "
        f"first token p50 {1e3 * row['first']['p50']:.0f} ms, p99 {1e3 * row['first']['p99']:.0f} "
        f"ms, a token {1e3 * row['token']['p50']:.2f} ms, {1e3 * row['cpu']:.1f} ms of CPU each",
        flush=True,
    )
    return row


def main() -> None:
    options = common.parse(common.parser(__doc__))
    device = torch.device(options.device)
    rounds, requests, turns = (4, 16, 1) if options.quick else (100, 128, 4)
    torch.manual_seed(0)
    tokenizer = llmkit.CharTokenizer(CHARACTERS)
    model = llmkit.GPT(llmkit.GPTConfig(tokenizer.vocab_size, **SHAPE, bias=False)).eval()
    model, ids = model.to(device), tokenizer.encode(PROMPT)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "checkpoint", model, tokenizer)
        together, apart = (server(Path(folder), options.device, batch) for batch in BATCHES)
        with together as ours, apart as peer:
            client, found = Client(ours[0]), {"direct": [], "whole": [], "streamed": []}
            for n in range(-3, rounds):  # in turns
                for name, run in (
                    ("direct", lambda seed: direct(model, ids, seed)),
                    ("whole", client.whole),
                    ("streamed", client.streamed),
                ):
                    times = run(n + 3)
                    if n >= 0:
                        found[name].append(times)
            Client(peer[0]).streamed(0)  # loads its code, and does not count
            measured: dict[tuple[int, int], list[Any]] = defaultdict(list)
            for _ in range(turns):
                for clients in CLIENTS:
                    for batch, asked in zip(BATCHES, (ours, peer), strict=True):
                        measured[batch, clients].append(at_once(*asked, clients, requests))
    rows = [row_of(*key, found) for key, found in sorted(measured.items(), reverse=True)]
    speed = {(row["batch"], row["clients"]): row["requests_per_second"] for row in rows}
    most, one = CLIENTS[-1], BATCHES[-1]
    totals = {name: [t["total"] for t in times] for name, times in found.items()}
    rates = {name: NEW / statistics.median(each) for name, each in totals.items()}
    added = {n: statistics.median(totals[n]) - statistics.median(totals["direct"]) for n in totals}
    result = {
        "what": "tokens per second, one client, streamed, 0.8 M; the peer is without a server",
        "ours": rates["streamed"],
        "peer": rates["direct"],
        "peer_name": "llmkit.stream",
        "ratio": rates["streamed"] / rates["direct"],
        "tokens_per_second": rates,
        "seconds_added_to_a_request": {n: added[n] for n in ("whole", "streamed")},
        "gain_of_batching": {
            f"{most} clients, against one": speed[BATCHES[0], most] / speed[BATCHES[0], 1],
            f"{most} clients, against batch {one}": speed[BATCHES[0], most] / speed[one, most],
            f"1 client, against batch {one}": speed[BATCHES[0], 1] / speed[one, 1],
        },
        "one_at_a_time": {name: spread(times) for name, times in found.items()},
        "rows": rows,
        "new_tokens": NEW,
        "versions": common.versions("fastapi", "uvicorn"),
    }
    speeds = {
        "without a server": rates["direct"],
        "served whole": rates["whole"],
        "streamed": rates["streamed"],
    } | {
        f"streamed to {row['clients']}"
        + (", one after the other" if row["batch"] == one else ""): row["tokens_per_second"]
        for row in sorted(rows, key=lambda row: (-row["batch"], row["clients"]))
        if row["clients"] > 1
    }
    gain = speed[BATCHES[0], most] / speed[BATCHES[0], 1]
    picture = plots.bars(
        list(speeds)[::-1],
        list(speeds.values())[::-1],
        f"Drawn together, {most} clients get {gain:.1f} times what one gets",
        xlabel="tokens per second (0.8 M parameters)",
        highlight=f"streamed to {most}",
        fmt="{:,.0f}",
    )
    path = common.write_result("serving", device.type, result, picture, options.out)
    print("tokens/s: " + " · ".join(f"{name} {rate:,.0f}" for name, rate in speeds.items()))
    print(f"written to {path}" if path else "a rehearsal: nothing written")


if __name__ == "__main__":
    main()
