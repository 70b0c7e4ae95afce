"""What every benchmark here shares: timing in turns, a peer's code by path, and the results file.

A benchmark is a script that runs llmkit and a peer alternately in one process on one machine, since
a number from another day or another machine compares nothing. What it finds goes to
``benchmarks/results/NAME-DEVICE.json`` with the date, the hardware, the versions and the command.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
PEERS = {  # option: where to get the code that it wants the path of
    "nanogpt": "https://github.com/karpathy/nanoGPT",
    "mingpt": "https://github.com/karpathy/minGPT",
}


def alternate(
    *contenders: Callable[[], Any],
    repeats: int = 3,
    warmup: int = 1,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] | None = time.perf_counter,
) -> list[list[float]]:
    """Run each contender once, in turn, ``warmup + repeats`` times: the seconds of the repeats.

    Taken in turns, whatever else the machine does meets all of them alike. On a GPU the clock is
    read when its queue is empty.

    Args:
        contenders: functions without arguments.
        clock: ``time.process_time`` counts processor time, which other programs hardly blur; None:
            a contender returns its seconds itself (training without its evaluations, say).

    Returns:
        One list of ``repeats`` seconds for each contender, in their order.
    """
    times: list[list[float]] = [[] for _ in contenders]
    for round_ in range(warmup + repeats):
        for contender, taken in zip(contenders, times, strict=True):
            synchronize(device)
            started = clock() if clock else 0.0
            result = contender()
            synchronize(device)
            seconds = clock() - started if clock else float(result)
            del result  # giving memory back is not part of the work, nor of the next contender's
            if round_ >= warmup:
                taken.append(seconds)
    return times


def synchronize(device: torch.device | str) -> None:
    """Wait until a GPU has done all that it was told; a CPU has, always."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def compare(ours: Sequence[float], peer: Sequence[float]) -> dict[str, Any]:
    """Two lists of seconds from `alternate` as ``ours`` and ``peer`` (medians) and ``ratio``.

    ratio = peer / ours: how many times faster we are. ``ratio_spread`` is the lowest and the
    highest of the rounds' own ratios.
    """
    rounds = [theirs / own for own, theirs in zip(ours, peer, strict=True)]
    own, theirs = statistics.median(ours), statistics.median(peer)
    spread = [min(rounds), max(rounds)]
    return {"ours": own, "peer": theirs, "ratio": theirs / own, "ratio_spread": spread}


def import_from(checkout: Path | str, module: str) -> ModuleType:
    """A peer's module from its checkout: ``import_from("../nanoGPT", "model").GPT``.

    sys.path and sys.modules are left as they were, so that two peers may both have a ``model``.
    """
    folder = Path(checkout).expanduser().resolve()
    file = folder.joinpath(*module.split("."))
    if not (file.with_suffix(".py").is_file() or (file / "__init__.py").is_file()):
        raise FileNotFoundError(f"there is no module {module} in {checkout}: give a checkout of it")
    package = module.split(".")[0]

    def ours(name: str) -> bool:
        return name == package or name.startswith(package + ".")

    before = {name: sys.modules.pop(name) for name in list(sys.modules) if ours(name)}
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(folder))
        for name, loaded in list(sys.modules.items()):
            if ours(name) or folder in Path(getattr(loaded, "__file__", None) or "").parents:
                del sys.modules[name]
        sys.modules.update(before)


def parser(description: str, *peers: str, device: bool = True) -> argparse.ArgumentParser:
    """A parser with --quick and --out, --device if wanted, and an option PATH for each peer.

    description: the script's docstring, of which the first line is shown.
    """
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    if device:
        parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    for peer in peers:
        parser.add_argument(f"--{peer}", metavar="PATH", help=f"a checkout of {PEERS[peer]}")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: tiny, means nothing")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="where the results go (default: benchmarks/results; a rehearsal writes none)",
    )
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options; ``out`` is the results' folder, None where nothing is to be written."""
    options = parser.parse_args()
    if options.out is None and not options.quick:
        options.out = RESULTS
    return options


def hardware(device: torch.device | str = "cpu") -> str:
    """The processor's name and how many threads PyTorch uses of it, or the GPU's name."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    name = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name") or platform.processor()
    threads = torch.get_num_threads()
    return f"{name or 'CPU'}, {threads} thread{'s' * (threads > 1)}"


def versions(*packages: str, **checkouts: Path | str | None) -> dict[str, str]:
    """Python's and PyTorch's versions, those of more packages, and the commits of checkouts.

    ``versions("transformers", nanogpt=path)``; what is missing or None is left out.
    """
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name, path in checkouts.items():
        if path is not None:
            git = ["git", "-C", str(path), "rev-parse", "--short", "HEAD"]
            commit = subprocess.run(git, capture_output=True, text=True, check=False)
            found[name] = commit.stdout.strip() or "unknown"
    return found


def command() -> str:
    """The running command, as typed in the project's folder; absolute paths become PATH."""
    words = ["PATH" if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def write_result(
    name: str,
    device_type: str,
    result: dict[str, Any],
    picture: Any = None,
    folder: Path | str | None = RESULTS,
) -> Path | None:
    """Write NAME-DEVICE.json, and NAME-DEVICE.png where there is a ``plots.Picture``.

    Args:
        result: what was measured: ``ours``, ``peer``, ``ratio`` and what else there is to know;
            date, hardware, versions and command are added where it has none of its own.
        folder: ``options.out`` of `parse`; None (a rehearsal): nothing is written.
    """
    if folder is None:
        return None
    about = {
        "date": date.today().isoformat(),
        "hardware": hardware(device_type),
        "versions": versions(),
        "command": command(),
    }
    path = Path(folder) / f"{name}-{device_type}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result | {k: v for k, v in about.items() if k not in result}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
    if picture is not None:
        path.with_suffix(".png").write_bytes(picture.png())
    return path
