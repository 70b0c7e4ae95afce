"""Every notebook run whole on one device: whether each cell runs, and what each notebook takes.

    python benchmarks/notebooks.py [--device cuda] [NAME ...]

Each runs in a kernel of its own, with the budgets that `runtime.pick` has for that device, on a GPU
with Tiny Shakespeare at full size. Written down: its seconds, its slowest cell, the memory that a
GPU had to give at most, and the error of a cell that failed. Outputs are compared by pytest, not
here. `ours` is the sum of the seconds.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import nbformat

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402 - notebooks/build.py

MEMORY = (
    "import torch\nprint(torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)"
)


def whole(name: str, device: str) -> dict[str, Any]:
    """One notebook from top to bottom."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(MEMORY))
    found: dict[str, Any] = {}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            build.execute(notebook, Path(folder), os.environ | {"LLMKIT_DEVICE": device})
        except build.BuildError as error:
            found["error"] = str(error)
    found["seconds"] = time.perf_counter() - started
    if "error" not in found:
        found["gpu_bytes"] = int(notebook.cells[-1].outputs[0].text)
    return found


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 04_attention (all)")
    options = common.parse(parser)
    every = [path.stem for path in build.scripts()]
    names = options.names or (every[1:2] if options.quick else every)
    if unknown := sorted(set(names) - set(every)):
        parser.error(f"there is no notebook {unknown[0]}; there are {', '.join(every)}")
    found = {}
    for name in names:
        found[name] = one = whole(name, options.device)
        said = one.get("error", "ok").strip().splitlines()[-1]
        memory = f"{one.get('gpu_bytes', 0) / 1e9:5.1f} GB" * (options.device != "cpu")
        print(f"{name:28} {one['seconds']:6.1f} s  {memory}  {said}", flush=True)
    total = sum(one["seconds"] for one in found.values())
    failed = sorted(name for name, one in found.items() if "error" in one)
    result = {"ours": total, "unit": "seconds", "failed": failed, "notebooks": found}
    common.write_result("notebooks", options.device, result, folder=options.out)
    if failed:
        sys.exit(f"{len(failed)} failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
