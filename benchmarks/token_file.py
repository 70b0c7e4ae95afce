"""How fast a corpus becomes a token file, and in how much memory, beside the textbook's way.

    python benchmarks/token_file.py [--gigabytes 1]

makes a text of 1 GB (the embedded corpus, its speeches shuffled again and again) in a temporary
folder, which takes 4 GB of disk, tokenizes it by characters, each time in a new process, and writes
medians to benchmarks/results/token_file-cpu.json.

- ``ours`` and ``peer`` are megabytes of text per second; ours with all cores. Starting processes,
  and waiting for the disk at the end, count on both sides; importing PyTorch does not.
- The peer reads all of the text, looks each character up in a list comprehension, and writes an
  array of uint16. It gets a twentieth of the text: its memory grows with the text.
- ``streaming``: the same text from a streaming data set of its speeches, a fifth of it.
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

from common import parse, parser, versions, write_result

from llmkit import CharTokenizer, load_text
from llmkit.scale import parallel, token_file

MEGABYTE = 1_000_000
SHARES = {"one process": 1, "all cores": 1, "streaming": 5, "textbook": 20}  # of the text: 1/n


def make_text(path: Path, size: int) -> None:
    """`size` bytes of the embedded corpus, over and over, its speeches in ever another order."""
    draw, speeches = random.Random(0), load_text("embedded").strip().split("\n\n")
    with open(path, "wb") as file:
        while file.tell() < size:
            draw.shuffle(speeches)
            file.write("\n\n".join([*speeches, ""]).encode("ascii"))
        file.truncate(size)


def ours(source: str | Path, target: Path, workers: int) -> Callable[[], None]:
    tokenizer = CharTokenizer.from_text(load_text("embedded"))
    return lambda: token_file.write(target, source, tokenizer, workers=workers)


def streaming(source: Path, target: Path) -> Callable[[], None]:
    import datasets

    stream = datasets.load_dataset(
        "text", data_files=str(source), split="train", streaming=True, sample_by="paragraph"
    )
    return ours(stream, target, parallel.cores())


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
    """In a new process: do the work and print how many seconds it took."""
    prepare = {
        "one process": lambda: ours(source, target, 1),
        "all cores": lambda: ours(source, target, parallel.cores()),
        "streaming": lambda: streaming(source, target),
        "textbook": lambda: textbook(source, target),
    }[contender]
    work = prepare()
    started = time.perf_counter()
    work()
    print(time.perf_counter() - started)


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
        return {
            "seconds": float(process.stdout.read()),
            "memory": together / MEGABYTE,
            "sum_of_resident_peaks": sum(peaks.values()) / MEGABYTE,
            "processes": len(peaks),
        }


def members(leader: int) -> list[int]:
    """The processes of one run: the first, and those it started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()  # behind the program's name
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
    result = {"megabytes_of_text": size / MEGABYTE, "cores": parallel.cores()}
    for contender, n in SHARES.items():
        medians = {k: statistics.median(run[k] for run in runs[contender]) for k in run}
        result[contender] = {"megabytes_of_text": size / n / MEGABYTE} | medians
        print(f"{contender:12} {json.dumps(result[contender])}")
    speeds = {contender: result[contender]["megabytes_per_second"] for contender in SHARES}
    result |= {
        "ours": speeds["all cores"],
        "peer": speeds["textbook"],
        "ratio": speeds["all cores"] / speeds["textbook"],
        "ours_per_core": speeds["all cores"] / parallel.cores(),
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
