"""How fast a corpus becomes a token file, and in how much memory, beside the textbook's way.

    python benchmarks/token_file.py [--gigabytes 1]

makes a text of 1 GB (the embedded corpus, its speeches shuffled again and again) in a temporary
folder, which takes 6 GB of disk, tokenizes it, each time in a new process, and writes medians to
benchmarks/results/token_file-cpu.json.

- ``ours`` and ``peer`` are megabytes of text per second, by characters, in one process. Waiting for
  the disk at the end counts on both sides; importing PyTorch and `datasets` does not.
- The peer reads all of the text, looks each character up in a list comprehension, and writes an
  array of uint16. It gets a twentieth of the text: its memory grows with the text.
- ``streaming``: the same text from a streaming data set of its speeches, a fifth of it.
- ``subwords``: by BPE with 1,024 tokens, a twentieth; also with all cores, which
  `Dataset.map(num_proc=...)` then starts again for every 8 MB that each of them gets.
- ``cpu_seconds`` are of the process and those it starts: on a busy machine they say more.
- Memory is the most that all processes of a run, imports included, have together: proportional set
  sizes, in which a page shared by several counts once, sampled every 50 ms (Linux only).
  ``sum_of_resident_peaks`` counts it for each, and adds up peaks that do not fall together.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import datasets
from common import parse, parser, versions, write_result

from llmkit import BPETokenizer, CharTokenizer, load_text
from llmkit.scale import token_file

MEGABYTE = 1_000_000
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
SHARES = {  # of the text: 1/n
    "characters": 1,
    "streaming": 5,
    "subwords": 20,
    "subwords, all cores": 20,
    "textbook": 20,
}


def make_text(path: Path, size: int) -> None:
    """`size` bytes of the embedded corpus, over and over, its speeches in ever another order."""
    draw, speeches = random.Random(0), load_text("embedded").strip().split("\n\n")
    with open(path, "wb") as file:
        while file.tell() < size:
            draw.shuffle(speeches)
            file.write("\n\n".join([*speeches, ""]).encode("ascii"))
        file.truncate(size)


def characters(source: str | Path, target: Path) -> Callable[[], None]:
    tokenizer = CharTokenizer.from_text(load_text("embedded"))
    return lambda: token_file.write(target, source, tokenizer)


def subwords(source: Path, target: Path, num_proc: int | None) -> Callable[[], None]:
    tokenizer = BPETokenizer.train(load_text("embedded"), 1024)
    return lambda: token_file.write(target, source, tokenizer, num_proc=num_proc)


def streaming(source: Path, target: Path) -> Callable[[], None]:
    stream = datasets.load_dataset(
        "text", data_files=str(source), split="train", streaming=True, sample_by="paragraph"
    )
    return characters(stream, target)


def textbook(source: Path, target: Path) -> Callable[[], None]:
    import numpy as np

    stoi = {character: i for i, character in enumerate(sorted(set(load_text("embedded"))))}

    def run() -> None:
        text = source.read_text(encoding="utf-8")
        ids = np.array([stoi[character] for character in text], dtype=np.uint16)
        with open(target, "wb") as file:
            ids.tofile(file)
            os.fsync(file.fileno())

    return run


def run_here(contender: str, source: Path, target: Path) -> None:
    """In a new process: do the work; print how many seconds it took, and of processors' time."""
    prepare = {
        "characters": lambda: characters(source, target),
        "subwords": lambda: subwords(source, target, None),
        "subwords, all cores": lambda: subwords(source, target, CORES),
        "streaming": lambda: streaming(source, target),
        "textbook": lambda: textbook(source, target),
    }[contender]
    work = prepare()
    datasets.disable_progress_bars()
    started, before = time.perf_counter(), sum(os.times()[:4])
    work()
    print(time.perf_counter() - started, sum(os.times()[:4]) - before)


def run_apart(contender: str, source: Path, target: Path) -> dict[str, float]:
    """Seconds of `run_here` in a new process, and the memory of that and of those it starts."""
    command = [sys.executable, __file__, "--run", contender, str(source), str(target)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        together, peaks = 0, {}
        while process.poll() is None:
            memory = {pid: read_memory(pid) for pid in members(process.pid)}
            together = max(together, sum(pss for pss, _ in memory.values()))
            for pid, (_, peak) in memory.items():
                peaks[pid] = max(peaks.get(pid, 0), peak)
            time.sleep(0.05)
        if process.returncode:
            raise SystemExit(f"{contender} failed")
        seconds, cpu_seconds = map(float, process.stdout.read().split())
        return {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "memory": together / MEGABYTE,
            "sum_of_resident_peaks": sum(peaks.values()) / MEGABYTE,
            "processes": len(peaks),
        }


def members(leader: int) -> list[int]:
    """The processes of one run: the first, and those it started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()  # after the program's name
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == leader:
            found.append(int(stat.parent.name))
    return found


def read_memory(pid: int) -> tuple[int, int]:
    """A process's proportional set size, and the most that its resident set ever was, in bytes."""
    try:
        now = Path(f"/proc/{pid}/smaps_rollup").read_text().split("\nPss:")[1].split()[0]
        peak = Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]
    except (OSError, IndexError):  # it has just ended
        return 0, 0
    return int(now) * 1024, int(peak) * 1024


def check(target: Path, source: Path) -> None:
    """SystemExit unless the ids stand for the text."""
    ids, tokenizer = token_file.load(target)
    size = source.stat().st_size
    with open(source, "rb") as file:
        for start in (0, size // 2, size - 1000):
            file.seek(start)
            if tokenizer.decode(ids[start : start + 1000]) != file.read(1000).decode():
                raise SystemExit(f"{target}: the ids from {start} on are not those of the text")
    if len(ids) != size:
        raise SystemExit(f"{len(ids)} ids for {size} characters")


def main() -> None:
    options = parser(__doc__, device=False)
    options.add_argument("--gigabytes", type=float, default=1.0, help="of text (default: 1)")
    options.add_argument("--folder", help="for the temporary files (default: the system's)")
    options = parse(options)
    size = int((0.04 if options.quick else options.gigabytes) * 1000 * MEGABYTE)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        texts = {n: Path(folder) / f"text_{n}.txt" for n in set(SHARES.values())}
        for n, path in texts.items():
            make_text(path, size // n)
        target = Path(folder) / "ids"
        runs: dict[str, list[dict]] = {contender: [] for contender in SHARES}
        for _ in range(1 if options.quick else 3):
            for contender, n in SHARES.items():
                run = run_apart(contender, texts[n], target)
                if n == 1:
                    check(target, texts[n])
                target.unlink()
                run["megabytes_per_second"] = size / n / MEGABYTE / run.pop("seconds")
                runs[contender].append(run)
    result = {"megabytes_of_text": size / MEGABYTE, "cores": CORES}
    for contender, n in SHARES.items():
        medians = {k: statistics.median(run[k] for run in runs[contender]) for k in run}
        result[contender] = {"megabytes_of_text": size / n / MEGABYTE} | medians
        print(f"{contender:12} {json.dumps(result[contender])}")
    speeds = {contender: result[contender]["megabytes_per_second"] for contender in SHARES}
    result |= {
        "ours": speeds["characters"],
        "peer": speeds["textbook"],
        "ratio": speeds["characters"] / speeds["textbook"],
        "peer_bytes_of_memory_per_byte": result["textbook"]["memory"] * 20 * MEGABYTE / size,
        "versions": versions("numpy", "datasets", "safetensors"),
    }
    write_result("token_file", "cpu", result, folder=options.out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        contender, source, target = sys.argv[2:]
        run_here(contender, Path(source), Path(target))
    else:
        main()
