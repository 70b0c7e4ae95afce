"""The stored notebooks as artefacts: what each must be, beyond giving its outputs again (nbval).

`faults` returns what is wrong with a notebook, a sentence each, and executes nothing. The tests
below apply it to every notebook, and to a good one into which each fault is planted. How a notebook
may speak of a GPU is told in test_gpu_branches.py.
"""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import build
import nbformat
import pytest
from build import tags
from nbformat import NotebookNode

NOTEBOOKS = sorted(build.NOTEBOOKS.glob("*.ipynb"))
TAGS = {
    "setup",  # the generated second cell
    "exercise",  # a stub for the reader
    "solution",  # worked, and folded away
    "trained",  # asserts what only real training makes true: see test_gpu_branches.py
    "nbval-ignore-output",  # not compared: a banner or timings
    "sampled-text",  # not compared either, and not counted: shows text drawn at random
    "raises-exception",  # shows an error on purpose
}
UNCOMPARED = 2
CODE_LINES, SOLUTION_LINES, CODE_WIDTH, PROSE_LINES, PROSE_WIDTH = 20, 30, 100, 25, 130
OUTPUT_LINES = 60
BYTES = 1_000_000

IN_OUTPUTS = {
    "a path of this machine": r"(?<![\w.])/(?:home|root|tmp|usr|opt|var|mnt|content|Users)/|"
    r"\b[A-Z]:\\|(?:site|dist)-packages|ipykernel_\d|" + re.escape(str(build.NOTEBOOKS.parent)),
    "a date": r"\b(?:19|20)\d\d-\d\d-\d\d\b|\b\d?\d:\d\d:\d\d\b|"
    r"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* \d{1,2},? (?:\d{4}|\d\d:)",
    "an address in memory": r"\bat 0x[0-9a-f]{6,}",
    "a widget without a picture": r"^(?:[HV]?Box|interactive|\w*Slider|Output|HTML)\(.*[)]$",
}
IN_CODE = {
    "a magic or shell command": r"^\s*[%!]",
    "a comment that steers nbval": r"^\s*#\s*(?:NBVAL|PYTEST_VALIDATE)_",
    "the device (use runtime.pick)": r"torch\.cuda|is_available\(|\.type\b\s*[!=]=",
}


def lines_of(output: NotebookNode) -> Iterator[str]:
    """The texts of one output, of every kind that can be read."""
    if output.output_type == "stream":
        yield output.text
    elif output.output_type == "error":
        yield f"{output.ename}: {output.evalue}"
    else:
        yield from (text for kind, text in output.data.items() if kind.startswith("text/"))


def order_faults(code: list[NotebookNode]) -> Iterator[str]:
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        yield f"the cells were not executed once, in order: {counts}"


def tag_faults(code: list[NotebookNode]) -> Iterator[str]:
    for number, cell in enumerate(code, 1):
        for tag in sorted(set(tags(cell)) - TAGS):
            yield f"code cell {number} has the unknown tag {tag!r}"
        if "sampled-text" in tags(cell) and "nbval-ignore-output" not in tags(cell):
            yield f"code cell {number} shows sampled text and lacks the tag nbval-ignore-output"
    ignored = [
        c for c in code if "nbval-ignore-output" in tags(c) and "sampled-text" not in tags(c)
    ]
    if len(ignored) > UNCOMPARED:
        yield f"{len(ignored)} cells are not compared; at most {UNCOMPARED} may be"


def output_faults(code: list[NotebookNode]) -> Iterator[str]:
    for number, cell in enumerate(code, 1):
        where = f"code cell {number}"
        failed = any(output.output_type == "error" for output in cell.outputs)
        if failed != ("raises-exception" in tags(cell)):
            yield f"{where} {'fails' if failed else 'should show an error and shows none'}"
        for output in cell.outputs:
            if output.get("name") == "stderr":
                yield f"{where} writes to stderr: {output.text[:80]!r}"
            data = output.get("data", {})
            if build.WIDGET_VIEW in data:
                yield f"{where} stores a widget's view"
            if "<Figure size" in data.get("text/plain", "") and "image/png" not in data:
                yield f"{where} shows a figure without a PNG"
            drawn = data.get("text/plain", "").startswith("<drawing: ")  # by llmkit.drawings
            if "image/jpeg" in data or ("image/svg+xml" in data and not drawn):
                yield f"{where} shows a picture that is not a PNG"
            for text in lines_of(output):
                if text.count("\n") >= OUTPUT_LINES:
                    yield f"{where} prints {text.count(chr(10)) + 1} lines"
                for what, pattern in IN_OUTPUTS.items():
                    if match := re.search(pattern, text, re.MULTILINE):
                        yield f"{where} shows {what}: {match[0]!r}"


def source_faults(cells: list[NotebookNode]) -> Iterator[str]:
    for number, cell in enumerate(cells, 1):
        prose = cell.cell_type != "code"
        most, width = (PROSE_LINES, PROSE_WIDTH) if prose else (CODE_LINES, CODE_WIDTH)
        most = SOLUTION_LINES if "solution" in tags(cell) else most
        lines = cell.source.splitlines()
        if not cell.source.strip():
            yield f"cell {number} is empty"
        if len(lines) > most:
            yield f"cell {number} has {len(lines)} lines; at most {most} fit a screen"
        for line in lines:
            if len(line) > width and "](http" not in line:
                yield f"cell {number} has a line of {len(line)} characters: {line[:40]!r}"
        for what, pattern in {} if prose else IN_CODE.items():
            if match := re.search(pattern, cell.source, re.MULTILINE):
                yield f"cell {number} has {what}: {match[0].strip()!r}"


def shape_faults(cells: list[NotebookNode]) -> Iterator[str]:
    code = [cell for cell in cells if cell.cell_type == "code"]
    start = code[1].source if len(code) > 1 else ""
    if "llmkit.start(" not in start or start.splitlines()[-1] != "runtime":
        yield "the second code cell does not call llmkit.start and end by showing `runtime`"
    sections = [
        (number, match[1])
        for number, cell in enumerate(cells)
        if cell.cell_type == "markdown"
        for match in re.finditer(r"^## (What we saw|Exercises)$", cell.source, re.MULTILINE)
    ]
    if [name for _, name in sections] != ["What we saw", "Exercises"]:
        yield "it does not end in the sections `## What we saw` and `## Exercises`"
    after = cells[sections[-1][0] :] if sections else []
    for tag in ("exercise", "solution"):
        if not any(tag in tags(cell) for cell in after):
            yield f"there is no {tag} cell under the exercises"
    for cell in code:
        if "solution" in tags(cell) and not (
            cell.source.startswith("# @title Solution")
            and cell.metadata.get("cellView") == "form"
            and cell.metadata.get("jupyter", {}).get("source_hidden")
        ):
            yield f"a solution is not folded away: {cell.source[:40]!r}"


def link_faults(cells: list[NotebookNode], folder: Path) -> Iterator[str]:
    for cell in cells:
        if cell.cell_type == "markdown":
            targets = re.findall(r"\]\(\s*<?([^)\s>]+)|<img[^>]*src=\"([^\"]+)\"", cell.source)
            for target in ("".join(pair) for pair in targets):
                path = target.split("#")[0]
                if path and not re.match(r"\w+:", path) and not (folder / path).exists():
                    yield f"the link target {target!r} does not exist"


def faults(path: Path) -> list[str]:
    """Everything that is wrong with a stored notebook, a sentence each."""
    notebook = nbformat.read(path, as_version=4)
    cells = notebook.cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    script = path.parent / "src" / f"{path.stem}.py"
    found = build.check(script) if script.exists() else [f"there is no src/{script.name}"]
    if "widgets" in notebook.metadata:
        found.append("it stores the state of widgets in its metadata")
    if path.stat().st_size > BYTES:
        found.append(f"it has {path.stat().st_size:,} bytes; at most {BYTES:,} load quickly")
    for checked in (
        order_faults(code),
        tag_faults(code),
        output_faults(code),
        source_faults(cells),
        shape_faults(cells),
        link_faults(cells, path.parent),
    ):
        found += checked
    return found


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in NOTEBOOKS])
def test_no_faults(path):
    found = faults(path)
    assert not found, "\n".join(found)


def test_every_script_has_its_notebook_and_the_other_way_round():
    expected = {build.notebook_of(script) for script in build.scripts()}
    assert expected == set(NOTEBOOKS)


# ------------------------------------------------------------------ would a fault be found?

SCRIPT = """
# %% [markdown]
# # 01 · Data
# *Text is the only supervision.*

# %%
import llmkit

runtime = llmkit.start(seed=1337)
runtime

# %% [markdown]
# ## The question
# What is in a text? See [the other notebook](02_more.ipynb) and [a page](https://example.org/).

# %%
print("≈ 1.873")

# %% tags=["nbval-ignore-output", "sampled-text"]
print("ROMEO: what light")

# %% [markdown]
# ## What we saw
# A text.

# %% [markdown]
# ## Exercises
# Count.

# %% tags=["exercise"]
answer = None

# %% tags=["solution"]
# @title Solution 1
answer = 1
answer
"""
PNG = (  # one grey dot
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A folder with two notebooks as the build would leave them, had it executed them."""
    folder = tmp_path_factory.mktemp("project") / "notebooks"
    (folder / "src").mkdir(parents=True)
    (folder.parent / "llmkit").mkdir()
    for name in ("pyproject.toml", "llmkit/__init__.py"):  # what is stamped comes from these
        shutil.copy(build.NOTEBOOKS.parent / name, folder.parent / name)
    second = SCRIPT.replace("01 · Data", "02 · More").replace("02_more", "01_data")
    (folder / "src/01_data.py").write_text(SCRIPT.lstrip(), encoding="utf-8")
    (folder / "src/02_more.py").write_text(second.lstrip(), encoding="utf-8")
    for script in build.scripts(folder):
        notebook = build.stamped(script)
        build.write(script, build.as_script(notebook, script))
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for count, cell in enumerate(code, 1):
            cell.execution_count = count
        code[1].outputs = [
            nbformat.v4.new_output(
                "execute_result", {"text/plain": "llmkit on cpu"}, execution_count=2
            )
        ]
        code[2].outputs = [
            nbformat.v4.new_output("stream", name="stdout", text="≈ 1.873\n"),
            nbformat.v4.new_output(
                "display_data", {"image/png": PNG, "text/plain": "<Figure size 1x1 with 1 Axes>"}
            ),
        ]
        build.write(
            build.notebook_of(script), build.as_json(build.normalised(notebook, script.stem))
        )
    return folder


def test_a_good_notebook_has_no_faults(good):
    assert faults(good / "01_data.ipynb") == []
    assert faults(good / "02_more.ipynb") == []


def says(text: str, kind: str = "stdout") -> Callable[[list[NotebookNode]], None]:
    """The fault of a cell that prints `text`."""
    output = nbformat.v4.new_output("stream", name=kind, text=text)
    return lambda cells: cells[5].outputs.append(output)


def shows(**data: str) -> Callable[[list[NotebookNode]], None]:
    """The fault of a cell that displays these representations, named as `text_plain`."""
    data = {kind.replace("__", "/"): text for kind, text in data.items()}
    output = nbformat.v4.new_output("display_data", data)
    return lambda cells: cells[5].outputs.append(output)


def has(source: str, cell: int = 4) -> Callable[[list[NotebookNode]], None]:
    """The fault of a cell with this text; cell 3 is prose, 4 is code."""
    return lambda cells: cells[cell].update(source=source)


def tagged(*tags: str, cells: tuple[int, ...] = (4,)) -> Callable[[list[NotebookNode]], None]:
    return lambda all_: [all_[number].metadata.update(tags=list(tags)) for number in cells]


FAULTS = {
    "changed in the notebook": (has("print(2)"), "does not hold what 01_data.py says"),
    "another id": (lambda cells: cells[4].update(id="mine"), "was not written by the build"),
    "never run": (lambda cells: cells[4].update(execution_count=None), "in order: .*None"),
    "run twice": (lambda cells: cells[4].update(execution_count=9), "in order: .*9"),
    "error": (
        lambda cells: cells[4].outputs.append(
            nbformat.v4.new_output("error", ename="E", evalue="no", traceback=[])
        ),
        "code cell 3 fails",
    ),
    "no error": (tagged("raises-exception"), "should show an error"),
    "stderr": (says("Warning", "stderr"), "writes to stderr"),
    "skipped": (tagged("nbval-skip"), "unknown tag 'nbval-skip'"),
    "sample compared": (tagged("sampled-text"), "lacks the tag nbval-ignore-output"),
    "uncompared": (tagged("nbval-ignore-output", cells=(1, 2, 4)), "3 cells are not compared"),
    "path": (says("saved in /home/reader/x"), "a path of this machine"),
    "Windows path": (says("saved in C:\\x"), "a path of this machine"),
    "package path": (says("lib/site-packages/x"), "a path of this machine"),
    "date": (says("on 2026-11-20"), "a date"),
    "hour": (says("at 18:05:59"), "a date"),
    "written date": (says("on Nov 20, 2026"), "a date"),
    "address": (shows(text__plain="<A object at 0x7f12a9c0>"), "an address in memory"),
    "widget": (shows(text__plain="VBox(children=(HTML(value='')))"), "without a picture"),
    "widget view": (
        lambda cells: cells[4].outputs.append(
            nbformat.v4.new_output("display_data", {build.WIDGET_VIEW: {}, "text/plain": "x"})
        ),
        "a widget's view",
    ),
    "no PNG": (shows(text__plain="<Figure size 640x480 with 1 Axes>"), "without a PNG"),
    "SVG": (shows(**{"image__svg+xml": "<svg/>"}), "not a PNG"),
    "long output": (says("line\n" * 61), "prints 6. lines"),
    "large": (says("x" * 1_000_000), r"1,0\d\d,\d{3} bytes"),
    "empty": (has(""), "cell 5 is empty"),
    "long cell": (has("pass\n" * 31), "has 31 lines"),
    "long prose": (has("word\n" * 26, cell=3), "has 26 lines"),
    "wide code": (has("x = " + "1 + " * 30 + "1"), "a line of 125 characters"),
    "wide prose": (has("word " * 30, cell=3), "a line of 150 characters"),
    "magic": (has("%matplotlib inline"), "a magic"),
    "shell": (has("!ls"), "a magic"),
    "nbval comment": (has("# NBVAL_SKIP\n1"), "steers nbval"),
    "CUDA": (has("torch.cuda.empty_cache()"), "use runtime.pick"),
    "device": (has("if runtime.device.type == 'cuda':\n    pass"), "use runtime.pick"),
    "no start": (has("import llmkit", cell=2), "llmkit.start"),
    "runtime not shown": (has("runtime = llmkit.start(seed=1337)", cell=2), "llmkit.start"),
    "no summary": (has("Well.", cell=6), "does not end in the sections"),
    "no stub": (tagged(cells=(8,)), "no exercise cell"),
    "no solution": (tagged(cells=(9,)), "no solution cell"),
    "unfolded": (lambda cells: cells[9].metadata.pop("cellView"), "not folded away"),
    "dead link": (has("[x](no.ipynb)", cell=3), "'no.ipynb' does not exist"),
    "dead picture": (has('<img width="9" src="no.png">', cell=3), "'no.png' does not exist"),
    "old setup": (has("%pip install llmkit", cell=1), "does not hold what"),
    "old header": (has("# 01 · Data", cell=0), "does not hold what"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault, good, tmp_path):
    plant, told = FAULTS[fault]
    folder = tmp_path / "notebooks"
    shutil.copytree(good.parent, tmp_path, dirs_exist_ok=True)
    path = folder / "01_data.ipynb"
    notebook = copy.deepcopy(nbformat.read(path, as_version=4))
    plant(notebook.cells)
    path.write_text(build.as_json(notebook), encoding="utf-8")
    assert any(re.search(told, found) for found in faults(path)), faults(path)


def test_widget_state_is_found(good, tmp_path):
    shutil.copytree(good.parent, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "notebooks" / "01_data.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["widgets"] = {}
    path.write_text(build.as_json(notebook), encoding="utf-8")
    assert "it stores the state of widgets in its metadata" in faults(path)


def test_a_stale_header_or_setup_in_the_script_is_found(good, tmp_path):
    """The address in pyproject.toml changed, or the neighbour's title."""
    shutil.copytree(good.parent, tmp_path, dirs_exist_ok=True)
    project, neighbour = tmp_path / "pyproject.toml", tmp_path / "notebooks/src/02_more.py"
    path = tmp_path / "notebooks/01_data.ipynb"
    neighbour.write_text(neighbour.read_text().replace("02 · More", "02 · Else"))
    assert any("01_data.py: line 9" in found for found in faults(path))
    neighbour.write_text(neighbour.read_text().replace("02 · Else", "02 · More"))
    assert faults(path) == []
    project.write_text(project.read_text().replace("your-account", "somebody"))
    assert any("01_data.py: line 5" in found for found in faults(path))
