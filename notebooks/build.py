"""The one way a notebook is made: `python notebooks/build.py [NUMBER_OR_NAME ...]`.

People edit the scripts `src/NN_name.py` (jupytext's percent format). For each, this file

1. stamps: badge and links go under the title, the setup cell under those;
2. converts the script to `NN_name.ipynb`, never the other way;
3. executes it in this folder, on the CPU, on the embedded corpus, with no network;
4. normalises what comes out, so that a rebuild without a change gives the same bytes.

README.md gets the same links and minutes. `--stamp` executes nothing: where the code is as it was,
its stored outputs are kept. `--check` executes nothing either, and says what is out of date. What a
stored notebook must look like beyond that is told in tests/test_notebooks.py.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from itertools import zip_longest
from pathlib import Path

import jupytext
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from jupytext.config import load_jupytext_config
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent
OFFLINE = NOTEBOOKS.parent / "tests" / "offline"
CELL_SECONDS = 300  # as in pytest's options

# Threads that wait for each other by spinning cost more than they bring where something else runs
# on the machine; so each process has one thread, and two of pytest's workers share the notebooks.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

# What a notebook needs beyond llmkit's own dependencies:
# its name -> (llmkit's extra, a module which that extra brings, what else pip is told).
EXTRAS: dict[str, tuple[str, ...]] = {
    "13_instruction_tuning": ("metrics", "sacrebleu"),
    # A newer onnx would replace Colab's protobuf, which Google's own packages need as it is.
    "14_deployment": ("serve,client,export", "onnxscript", "onnx<1.23"),
}
# Which of Colab's own packages pip replaces nevertheless: the setup cell says so, and no other may.
REPLACED: dict[str, tuple[str, ...]] = {"14_deployment": ("torchao",)}

SETUP = """\
# Installs llmkit where it is missing, as on Colab (some 20 seconds); elsewhere it installs nothing.
{replaced}import importlib.util
import os
import subprocess
import sys

if "OMP_WAIT_POLICY" not in os.environ:  # threads that wait soon leave the cores to others
    os.environ |= {{"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}}
if importlib.util.find_spec("{module}") is None:
    source = os.environ.get("LLMKIT_SOURCE", "git+{repository}@{tag}")
    pip = [sys.executable, "-m", "pip", "install", "-qq"]
    pip += [{requirement}]
    if subprocess.run(pip).returncode != 0:
        raise RuntimeError(f"llmkit could not be installed from {{source}}; pip says above why.")
    importlib.invalidate_caches()"""

BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class BuildError(Exception):
    """What the person who runs the build should read: a sentence, or a cell and its error."""


# ---------------------------------------------------------------------------------- stamping


def scripts(folder: Path = NOTEBOOKS) -> list[Path]:
    """The scripts in reading order."""
    found = folder.glob("src/[0-9][0-9]*_*.py")
    return sorted(script for script in found if re.fullmatch(r"\d\d[b-z]?", number(script)))


def number(script: Path) -> str:
    """ "05" of 05_transformer.py, "05b" of a companion that comes after it."""
    return script.stem.partition("_")[0]


def notebook_of(script: Path) -> Path:
    """notebooks/src/NN_name.py -> notebooks/NN_name.ipynb"""
    return script.parent.parent / f"{script.stem}.ipynb"


def repository(folder: Path = NOTEBOOKS) -> str:
    """The project's address, from the one place that has it: [project.urls] in pyproject.toml."""
    text = (folder.parent / "pyproject.toml").read_text(encoding="utf-8")
    if match := re.search(r'^Repository = "(https://github\.com/[^/"]+/[^/"]+)"', text, re.M):
        return match[1]
    raise BuildError('pyproject.toml should have Repository = "https://github.com/OWNER/NAME".')


def tag(folder: Path = NOTEBOOKS) -> str:
    """The release that links and setup cells stand for: a notebook and llmkit belong together, so
    neither is taken from a branch, which moves."""
    text = (folder.parent / "llmkit/__init__.py").read_text(encoding="utf-8")
    if match := re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE):
        return f"v{match[1]}"
    raise BuildError('llmkit/__init__.py should have __version__ = "…".')


def title(script: Path) -> str:
    """`04 · Attention`, from the script's first heading."""
    for line in script.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(rf"# # ({number(script)} · \S.*)", line):
            return match[1]
    wanted = f"`# {number(script)} · …`"
    raise BuildError(f"{script.name}: the first line of the first cell should be {wanted}.")


def colab(script: Path) -> str:
    """Where Colab opens the notebook."""
    folder = script.parent.parent
    project = repository(folder).removeprefix("https://github.com/")
    notebook = f"blob/{tag(folder)}/notebooks/{script.stem}.ipynb"
    return f"https://colab.research.google.com/github/{project}/{notebook}"


def minutes(cells: list[NotebookNode]) -> int:
    """How long the page takes to read, exercises aside: 180 words or 12 lines of code a minute."""
    words = lines = 0
    for cell in cells:
        if cell.cell_type == "code":
            lines += 0 if "setup" in tags(cell) else len(re.findall(r"^.*\S", cell.source, re.M))
        elif re.search(r"^## Exercises", cell.source, re.M):
            break
        else:
            words += len(cell.source.split())
    return round(words / 180 + lines / 12)


def header(script: Path, cell: str, reading: int) -> str:
    """The first cell's text: title and promise as its author wrote them; badge, time and links."""
    written = [line for line in cell.splitlines() if line.strip()]
    if len(written) < 2 or not re.fullmatch(r"\*[^*]+\*", written[1]):
        raise BuildError(
            f"{script.name}: under its title the first cell should have one line that tells what "
            "the notebook promises, in *italics*."
        )
    if not all(
        line.startswith(("[![Open in Colab]", "About ", "← [", "[")) for line in written[2:]
    ):
        raise BuildError(
            f"{script.name}: the first cell holds title and promise only; what follows "
            "belongs in a cell of its own."
        )
    everything = scripts(script.parent.parent)
    here = everything.index(script)
    links = []
    if here > 0:
        before = everything[here - 1]
        links.append(f"← [{title(before)}]({before.stem}.ipynb)")
    if here + 1 < len(everything):
        after = everything[here + 1]
        links.append(f"[{title(after)}]({after.stem}.ipynb) →")
    parts = [
        f"# {title(script)}\n{written[1]}",
        f"[![Open in Colab]({BADGE})]({colab(script)})",
        f"About {reading} minutes to read, exercises aside.",
    ]
    return "\n\n".join(parts + ([" · ".join(links)] if links else []))


def setup(script: Path) -> str:
    """The second cell's code."""
    extra, module, *more = EXTRAS.get(script.stem, ("", "llmkit"))
    requirement = f'f"llmkit[{extra}] @ {{source}}"' if extra else "source"
    replaced = [
        f"# Colab's own {name} is too old for this notebook, and is replaced.\n"
        for name in REPLACED.get(script.stem, ())
    ]
    return SETUP.format(
        module=module,
        repository=repository(script.parent.parent),
        tag=tag(script.parent.parent),
        requirement=", ".join([requirement, *map(json.dumps, more)]),
        replaced="".join(replaced),
    )


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def stamped(script: Path) -> NotebookNode:
    """The script as a notebook, formatted, its first two cells brought up to date."""
    text = script.read_text(encoding="utf-8")
    notebook = jupytext.reads(text, fmt="py:percent", config=load_jupytext_config(str(script)))
    cells = notebook.cells
    if not cells or cells[0].cell_type != "markdown":
        raise BuildError(f"{script.name}: the first cell should be markdown, with the title.")
    cells[0].source = header(script, cells[0].source, minutes(cells[1:]))
    if len(cells) < 2 or "setup" not in tags(cells[1]):
        cells.insert(1, nbformat.v4.new_code_cell(metadata={"tags": ["setup"]}))
    cells[1].source = setup(script)
    for cell in cells:
        if "solution" in tags(cell) and not cell.source.startswith("# @title Solution"):
            raise BuildError(
                f"{script.name}: a solution cell should open with `# @title Solution`."
            )
    return normalised(formatted(notebook, script), script.stem)


def formatted(notebook: NotebookNode, script: Path) -> NotebookNode:
    """Every code cell as ruff formats it. (On the whole script, ruff and jupytext would not agree
    about the blank lines between cells.)"""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", notebook_of(script), "-"]
    done = subprocess.run(
        command, input=nbformat.writes(notebook), capture_output=True, encoding="utf-8"
    )
    if done.returncode != 0:
        raise BuildError(f"{script.name}: ruff cannot format it: {done.stderr.strip()}")
    return nbformat.reads(done.stdout, as_version=4)


def as_script(notebook: NotebookNode, script: Path) -> str:
    """The notebook as jupytext writes it: what the script must be, to the letter."""
    return jupytext.writes(notebook, fmt="py:percent", config=load_jupytext_config(str(script)))


# --------------------------------------------------------------------------------- executing


class ThisPython(AsyncKernelManager):
    """Starts the interpreter that runs this file, whatever "python3" stands for elsewhere."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])  # nowhere to look: only its own is left


def kernel_environment() -> dict[str, str]:
    """What every notebook is built and checked in: CPU, embedded corpus, nothing from outside.

    One thread, unless the environment says otherwise.
    """
    outside = ("LLMKIT_DATA", "LLMKIT_SOURCE")
    environment = {name: value for name, value in os.environ.items() if name not in outside}
    path = [str(OFFLINE), environment.get("PYTHONPATH", "")]
    return (
        ONE_THREAD
        | environment
        | {
            "LLMKIT_DEVICE": "cpu",
            "LLMKIT_CORPUS": "embedded",
            "PYTHONPATH": os.pathsep.join(filter(None, path)),  # refuses connections
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",  # they show only where nothing is cached yet
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        }
    )


def execute(
    notebook: NotebookNode,
    folder: Path,
    environment: dict[str, str] | None = None,
    kernel: AsyncKernelManager | None = None,
) -> None:
    """Run every cell, in place. `BuildError`: the cell that failed and how.

    Without ``kernel`` the notebook gets one of its own. A kernel that is handed in is started if it
    does not run yet, and is left running, with all that the notebook defined.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(execution_count=None, outputs=[])
    client = NotebookClient(
        notebook,
        km=kernel,
        kernel_manager_class=ThisPython,
        kernel_name="python3",
        timeout=CELL_SECONDS,
        record_timing=False,
        coalesce_streams=True,  # else their number depends on timing
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(env=environment or kernel_environment(), stderr=subprocess.DEVNULL)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        if isinstance(error, CellExecutionError):
            reason = f"{error.ename}: {error.evalue}"
        else:
            reason = str(error).strip().splitlines()[0]
        run = [cell for cell in notebook.cells if cell.get("execution_count")]
        raise BuildError(
            f"this cell failed:\n\n{run[-1].source if run else ''}\n\n{reason}"
        ) from None
    finally:
        if kernel is not None and client.kc is not None:
            client.kc.stop_channels()


def stop(kernel: AsyncKernelManager) -> None:
    """End a kernel that was handed to `execute`."""
    if kernel.has_kernel:
        run_sync(kernel.shutdown_kernel)()


# ------------------------------------------------------------------------------- normalising


def without_text(png: str) -> str:
    """A base64 PNG less its text chunks, which name the program that drew it."""
    data = base64.b64decode(png)
    kept, start = [data[:8]], 8
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] not in (b"tEXt", b"iTXt", b"zTXt", b"tIME"):
            kept.append(data[start:end])
        start = end
    return base64.b64encode(b"".join(kept)).decode()


def normalised(notebook: NotebookNode, name: str) -> NotebookNode:
    """Only what is meant to be stored, in the form in which it is stored."""
    cells, seen = [], set()
    for cell in notebook.cells:
        # The id comes from the cell's text: it survives a rebuild and edits elsewhere.
        digest = hashlib.sha1(f"{cell.cell_type}\n{cell.source}".encode(), usedforsecurity=False)
        while (identity := f"{name[:2]}-{digest.hexdigest()[:8]}") in seen:
            digest.update(b"again")
        seen.add(identity)
        metadata = {"tags": tags(cell)} if tags(cell) else {}
        if "solution" in tags(cell):  # folded, on Colab and in JupyterLab
            metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}}
        kept = {
            "cell_type": cell.cell_type,
            "id": identity,
            "metadata": metadata,
            "source": cell.source,
        }
        if cell.cell_type == "code":
            kept |= {"execution_count": cell.execution_count, "outputs": cell.outputs}
            for output in cell.outputs:
                data = output.get("data", {})
                data.pop(WIDGET_VIEW, None)
                if "image/png" in data:
                    data["image/png"] = without_text(data["image/png"])
        cells.append(kept)
    metadata = {
        # As in pyproject.toml, which `jupytext --output -` does not ask.
        "jupytext": {"cell_metadata_filter": "tags,-all", "notebook_metadata_filter": "-all"},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    if any(".pick(" in cell.source for cell in notebook.cells):
        metadata |= {"accelerator": "GPU", "colab": {"gpuType": "T4"}}  # Colab offers one
    return nbformat.from_dict(
        {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    )


# ------------------------------------------------------------------------ building, checking


def as_json(notebook: NotebookNode) -> str:
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def write(path: Path, text: str) -> None:
    """Replace the file at once, so that nobody sees half of it; leave an equal one alone."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    os.replace(part, path)


def build(script: Path) -> str:
    """Make one notebook; returns a line that says what it cost."""
    notebook = stamped(script)
    write(script, as_script(notebook, script))
    start = time.perf_counter()
    execute(notebook, script.parent.parent)
    seconds = time.perf_counter() - start
    text = as_json(normalised(notebook, script.stem))
    write(notebook_of(script), text)
    stamp_readme(script, notebook)
    size = len(text.encode()) / 1000
    return f"{script.stem:20} {seconds:6.1f} s {len(notebook.cells):4} cells {size:6.0f} kB"


def stamp(script: Path) -> str:
    """Bring one notebook up to date without executing it; returns its name. `BuildError`: its code
    is not what made the stored outputs. (The setup cell may differ: it does nothing here.)"""
    notebook, path = stamped(script), notebook_of(script)
    stored = nbformat.read(path, as_version=4) if path.exists() else nbformat.v4.new_notebook()
    old, new = ([c for c in book.cells if c.cell_type == "code"] for book in (stored, notebook))
    ran, wanted = (["setup" in tags(c) or c.source for c in cells] for cells in (old, new))
    if ran != wanted:
        raise BuildError(f"it must be run: `python notebooks/build.py {number(script)}`.")
    for cell, before in zip(new, old, strict=True):
        cell.update(execution_count=before.execution_count, outputs=before.outputs)
    write(script, as_script(notebook, script))
    write(path, as_json(normalised(notebook, script.stem)))
    stamp_readme(script, notebook)
    return script.stem


def stamp_readme(script: Path, notebook: NotebookNode) -> None:
    """Bring the notebook's link and reading time in README.md up to date."""
    path = script.parents[2] / "README.md"
    text = path.read_text(encoding="utf-8")
    link = rf"https://colab\.research\.google\.com/github/[^)\s]+/{script.stem}\.ipynb"
    text = re.sub(link, colab(script), text)
    time_ = rf"(\(notebooks/{script.stem}\.ipynb\).*\| )\d+(?= \|)"
    write(path, re.sub(time_, rf"\g<1>{minutes(notebook.cells[1:])}", text))


def check(script: Path) -> list[str]:
    """What is out of date in one pair of script and notebook: a sentence each."""
    path, advice = notebook_of(script), f"run `python notebooks/build.py {number(script)}`."
    try:
        wanted = as_script(stamped(script), script)
    except BuildError as error:
        return [str(error)]
    text = script.read_text(encoding="utf-8")
    faults = []
    if text != wanted:
        lines = zip_longest(text.splitlines(), wanted.splitlines())
        differs = next((n for n, (is_, should) in enumerate(lines, 1) if is_ != should), "last")
        faults.append(f"{script.name}: line {differs} is not as the build writes it; {advice}")
    if not path.exists():
        return [*faults, f"{path.name} does not exist; {advice}"]
    stored = nbformat.read(path, as_version=4)
    if as_script(stored, script) != text:
        faults.append(f"{path.name} does not hold what {script.name} says; {advice}")
    if as_json(normalised(stored, script.stem)) != path.read_text(encoding="utf-8"):
        faults.append(f"{path.name} was not written by the build; {advice}")
    return faults


def orphans(folder: Path = NOTEBOOKS) -> list[str]:
    """Notebooks without a script: a sentence each."""
    strays = set(folder.glob("*.ipynb")) - {notebook_of(script) for script in scripts(folder)}
    return [
        f"{path.name} has no script src/{path.stem}.py to be made from." for path in sorted(strays)
    ]


def chosen(words: list[str], folder: Path = NOTEBOOKS) -> list[Path]:
    """The scripts that numbers and names stand for; without any, all of them."""
    everything = scripts(folder)
    found = {number(s): s for s in everything} | {s.stem: s for s in everything}
    names = [word.zfill(2) if word.isdigit() else Path(word).stem for word in words]
    for name in names:
        if name not in found:
            known = ", ".join(script.stem for script in everything) or "none"
            raise BuildError(f"There is no notebook {name}; there are: {known}.")
    return [found[name] for name in names] or everything


def main(arguments: list[str] | None = None, folder: Path = NOTEBOOKS) -> int:
    parser = argparse.ArgumentParser(description="Build the notebooks from their scripts.")
    parser.add_argument("notebook", nargs="*", help="number or name (default: all of them)")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--stamp", action="store_true", help="execute nothing, keep stored outputs")
    way.add_argument("--check", action="store_true", help="only say what is out of date")
    options = parser.parse_args(arguments)
    try:
        selection = chosen(options.notebook, folder)
    except BuildError as error:
        sys.exit(str(error))
    if options.check:
        faults = [fault for script in selection for fault in check(script)]
        faults += [] if options.notebook else orphans(folder)
        print("\n".join(faults) or f"up to date: {len(selection)} notebooks")
        return 1 if faults else 0
    for script in selection:
        try:
            print(stamp(script) if options.stamp else build(script), flush=True)
        except BuildError as error:
            sys.exit(f"{script.stem}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
