"""notebooks/build.py, the environment it and nbval run notebooks in, and nbval's sanitize file."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import build
import nbformat
import pytest
import torch
from nbval.plugin import IPyNbCell, get_sanitize_patterns

import llmkit

ROOT = build.NOTEBOOKS.parent

FIRST = """
# %% [markdown]
# # 01 · Data
# *Text is the only supervision.*

# %% [markdown]
# ## The question
# What is a text?

# %%
import os

import matplotlib.pyplot as plt
from tqdm.auto import tqdm

print(os.environ["LLMKIT_DEVICE"], os.environ["LLMKIT_CORPUS"], os.environ.get("LLMKIT_DATA"))
_ = [print(i) for i in tqdm(range(2))]

# %%
_ = plt.plot([1, 2])
plt.show()

# %%
try:
    import socket

    socket.create_connection(("192.0.2.1", 80), timeout=1)
except OSError as error:
    print(error)

# %%
1

# %%
1

# %% tags=["solution"]
# @title Solution 1
1
"""
README = """
[x](https://colab.research.google.com/github/a/b/blob/v0.0.1/notebooks/01_data.ipynb) | [y](x.ipynb)
| [Data](notebooks/01_data.ipynb) | 5 parts | 99 | x |
"""
SECOND = """
# %% [markdown]
# # 02 · Tokens
# *Text to integers.*

# %%
from types import SimpleNamespace

runtime = SimpleNamespace(pick=lambda cpu, gpu: cpu)
steps = runtime.pick(cpu=1, gpu=2)
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """notebooks/ of a small project with two scripts as an author first writes them."""
    folder = tmp_path / "notebooks"
    (folder / "src").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "llmkit").mkdir()
    (tmp_path / "llmkit/__init__.py").write_text('"""A kit."""\n\n__version__ = "1.2.3"\n')
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    (folder / "src/01_data.py").write_text(FIRST.lstrip(), encoding="utf-8")
    (folder / "src/02_tokens.py").write_text(SECOND.lstrip(), encoding="utf-8")
    return folder


def stamp(folder: Path, name: str = "01_data") -> str:
    script = folder / "src" / f"{name}.py"
    build.write(script, build.as_script(build.stamped(script), script))
    return script.read_text(encoding="utf-8")


def edit(folder: Path, old: str, new: str, name: str = "01_data") -> None:
    script = folder / "src" / f"{name}.py"
    text = script.read_text(encoding="utf-8")
    assert old in text
    script.write_text(text.replace(old, new), encoding="utf-8")


# -------------------------------------------------------------------------------- stamping


def test_the_header_has_badge_and_neighbours(folder):
    badge = (
        "# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        "(https://colab.research.google.com/github/your-account/llmkit/blob/v1.2.3/notebooks/{}.ipynb)"
    )
    first = "# %% [markdown]\n# # 01 · Data\n# *Text is the only supervision.*\n#\n{}\n"
    first += "#\n# About 1 minutes to read, exercises aside.\n#\n{}\n\n"
    links = "# [02 · Tokens](02_tokens.ipynb) →"
    assert stamp(folder).startswith(first.format(badge.format("01_data"), links))
    assert "\n# ← [01 · Data](01_data.ipynb)\n\n" in stamp(folder, "02_tokens")
    (folder / "src/03_bigram.py").write_text("# %% [markdown]\n# # 03 · Bigram\n# *Count.*\n")
    both = "\n# ← [01 · Data](01_data.ipynb) · [03 · Bigram](03_bigram.ipynb) →\n\n"
    assert both in stamp(folder, "02_tokens")


def test_a_companion_comes_after_its_notebook(folder):
    (folder / "src/01b_more.py").write_text("# %% [markdown]\n# # 01b · More\n# *Much more.*\n")
    (folder / "src/01_bare").mkdir()
    (folder / "src/01bc_notes.py").touch()  # neither is a notebook
    assert [build.number(script) for script in build.scripts(folder)] == ["01", "01b", "02"]
    assert [script.stem for script in build.chosen(["1", "01b"], folder)] == ["01_data", "01b_more"]
    links = "\n# ← [01 · Data](01_data.ipynb) · [02 · Tokens](02_tokens.ipynb) →\n\n"
    assert links in stamp(folder, "01b_more")


def test_minutes_are_of_words_and_lines_of_the_page_without_its_exercises():
    def cell(kind, source, *tags):
        return nbformat.NotebookNode(cell_type=kind, source=source, metadata={"tags": [*tags]})

    page = [
        cell("code", "long\n" * 500, "setup"),
        cell("markdown", "word " * 360),
        cell("code", "line\n\n" * 36),
    ]
    assert build.minutes(page) == 2 + 3
    assert build.minutes([*page, cell("markdown", "## Exercises\n" + "word " * 900), page[1]]) == 5


def test_stamping_twice_changes_nothing_and_keeps_what_the_author_wrote(folder):
    once = stamp(folder)
    assert stamp(folder) == once
    assert once.endswith(FIRST[FIRST.index("# %% [markdown]\n# ## The question") :])


def test_one_address_is_stamped_everywhere(folder):
    stamp(folder)
    project = folder.parent / "pyproject.toml"
    project.write_text(project.read_text().replace("your-account/llmkit", "somebody/else"))
    text = stamp(folder)
    assert text.count("somebody/else") == 2
    assert "your-account" not in text
    assert 'git+https://github.com/somebody/else@v1.2.3"' in text


def test_links_and_setup_cells_stand_for_this_version_of_llmkit():
    for script in build.scripts():
        setup = build.setup(script)
        assert f'"git+{build.repository()}@v{llmkit.__version__}"' in setup
        assert f"/blob/v{llmkit.__version__}/notebooks/" in build.colab(script)
        assert setup in script.read_text(encoding="utf-8")


def test_a_new_version_is_stamped_and_a_missing_one_is_told(folder):
    stamp(folder)
    kit = folder.parent / "llmkit/__init__.py"
    kit.write_text('__version__ = "2.0.0"\n')
    text = stamp(folder)
    assert (text.count("v1.2.3"), text.count("v2.0.0")) == (0, 2)
    kit.write_text("")
    with pytest.raises(build.BuildError, match="__version__"):
        stamp(folder)


@pytest.mark.parametrize(
    ("given", "seen"),
    [({}, ("PASSIVE", "1000")), ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None))],
)
def test_setup_cells_have_threads_soon_sleep_while_they_wait(monkeypatch, given, seen):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    others = {name: value for name, value in os.environ.items() if name not in names}
    monkeypatch.setattr(os, "environ", others | given)  # the reader's own word stands
    exec(build.setup(build.scripts()[0]), {})
    assert tuple(map(os.environ.get, names)) == seen


def test_an_edited_setup_cell_is_restored(folder):
    good = stamp(folder)
    edit(folder, "import importlib.util\n", "import torch\n")
    assert stamp(folder) == good


def test_cells_are_formatted_as_ruff_and_laid_out_as_jupytext_does(folder):
    edit(folder, "1\n\n# %%\n1\n", "x = { 'a' : 1 }\n# %%\ndef f( ):\n  return x\n")
    text = stamp(folder)
    assert '# %%\nx = {"a": 1}\n\n\n# %%\ndef f():\n    return x\n\n\n# %%' in text
    assert stamp(folder) == text


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("# # 01 · Data", "# # Data", "should be `# 01 · …`"),
        ("# # 01 · Data", "# # 02 · Data", "should be `# 01 · …`"),
        ("# *Text is the only supervision.*", "# Text", "what the notebook promises"),
        ("# *Text is the only supervision.*\n", "", "what the notebook promises"),
        ("supervision.*\n", "supervision.*\n#\n# And more.\n", "belongs in a cell of its own"),
        ("# %% [markdown]\n# # 01", "# %%\n# # 01", "first cell should be markdown"),
        ("# @title Solution 1", "# Solution", "should open with `# @title Solution`"),
        ("plt.show()", "plt.show(", "ruff cannot format it"),
    ],
)
def test_a_script_that_cannot_be_stamped_says_why(folder, old, new, told):
    edit(folder, old, new)
    with pytest.raises(build.BuildError, match=told):
        stamp(folder)
    assert any(told in fault for fault in build.check(folder / "src/01_data.py"))


def test_an_address_that_is_no_repository_is_refused(folder):
    (folder.parent / "pyproject.toml").write_text('[project.urls]\nHome = "https://x.org"\n')
    with pytest.raises(build.BuildError, match="OWNER/NAME"):
        build.repository(folder)


# ------------------------------------------------------------------------------ setup cell


class Pip:
    """Stands in for subprocess.run."""

    def __init__(self, returncode: int = 0) -> None:
        self.returncode, self.calls = returncode, []

    def __call__(self, command):
        self.calls.append(command)
        return SimpleNamespace(returncode=self.returncode)


def run_setup(folder, monkeypatch, pip: Pip, installed: bool) -> None:
    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr("importlib.invalidate_caches", lambda: pip.calls.append("look again"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    exec(build.setup(folder / "src/01_data.py"), {})


def test_setup_does_nothing_where_llmkit_imports(folder, monkeypatch, capfd):
    pip = Pip()
    run_setup(folder, monkeypatch, pip, installed=True)
    assert pip.calls == []
    assert capfd.readouterr() == ("", "")


def test_setup_installs_from_the_repository_or_from_llmkit_source(folder, monkeypatch, capfd):
    monkeypatch.delenv("LLMKIT_SOURCE", raising=False)
    pip = Pip()
    run_setup(folder, monkeypatch, pip, installed=False)
    monkeypatch.setenv("LLMKIT_SOURCE", "git+file:///a/folder")
    run_setup(folder, monkeypatch, pip, installed=False)
    install = [sys.executable, "-m", "pip", "install", "-qq"]
    assert pip.calls == [
        [*install, "git+https://github.com/your-account/llmkit@v1.2.3"],
        "look again",
        [*install, "git+file:///a/folder"],
        "look again",
    ]
    assert capfd.readouterr() == ("", "")


def test_setup_that_fails_says_so(folder, monkeypatch):
    with pytest.raises(RuntimeError, match="could not be installed from git"):
        run_setup(folder, monkeypatch, Pip(returncode=1), installed=False)


def test_a_notebook_can_ask_for_an_extra(folder, monkeypatch):
    monkeypatch.setitem(build.EXTRAS, "01_data", ("gpt2", "transformers"))
    monkeypatch.setenv("LLMKIT_SOURCE", "git+file:///a/folder")
    pip = Pip()
    run_setup(folder, monkeypatch, pip, installed=False)
    assert pip.calls[0][-1] == "llmkit[gpt2] @ git+file:///a/folder"
    assert 'find_spec("transformers")' in build.setup(folder / "src/01_data.py")


def test_a_notebook_can_hold_a_package_back_and_says_what_it_replaces(folder, monkeypatch):
    monkeypatch.setitem(build.EXTRAS, "01_data", ("gpt2", "transformers", "numpy<9"))
    monkeypatch.setitem(build.REPLACED, "01_data", ("torchao",))
    said = stamp(folder)
    assert "\n# Colab's own torchao is too old for this notebook, and is replaced.\nimport" in said
    assert "replaced" not in stamp(folder, "02_tokens")
    pip = Pip()
    monkeypatch.setenv("LLMKIT_SOURCE", "git+file:///a/folder")
    run_setup(folder, monkeypatch, pip, installed=False)
    assert pip.calls[0][-2:] == ["llmkit[gpt2] @ git+file:///a/folder", "numpy<9"]


# --------------------------------------------------------------------- executing, normalising


def test_build(folder, monkeypatch, capsys):
    """What is stored, that a rebuild gives the same bytes, and that a failure leaves them alone."""
    monkeypatch.setenv("LLMKIT_DATA", "elsewhere")
    monkeypatch.setenv("LLMKIT_DEVICE", "cuda")
    monkeypatch.setenv("MPLBACKEND", "agg")
    path = folder / "01_data.ipynb"
    assert build.main(["1"], folder) == 0
    assert capsys.readouterr().out.split()[::2] == ["01_data", "s", "cells", "kB"]
    stored = path.read_bytes()
    notebook = nbformat.reads(stored.decode(), as_version=4)
    nbformat.validate(notebook)
    assert stored.endswith(b"}\n")
    assert notebook.metadata == {
        "jupytext": {"cell_metadata_filter": "tags,-all", "notebook_metadata_filter": "-all"},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5, 6, 7]
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert code[0].outputs == []

    bar, printed = sorted(code[1].outputs, key=lambda output: output.output_type)
    assert list(bar.data) == ["text/plain"]  # the bar was a widget; its view is not stored
    assert printed.text == "cpu embedded None\n0\n1\n"
    [figure] = code[2].outputs
    png = base64.b64decode(figure.data["image/png"])
    assert png.startswith(b"\x89PNG")
    assert png.endswith(b"IEND\xaeB`\x82")
    assert b"tEXt" not in png
    assert "no network on purpose" in code[3].outputs[0].text
    assert code[6].metadata == {
        "cellView": "form",
        "jupyter": {"source_hidden": True},
        "tags": ["solution"],
    }

    assert build.main(["01_data", "--check"], folder) == 0
    command = [sys.executable, "-m", "jupytext", "--to", "py:percent", "--output", "-", path]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == (folder / "src/01_data.py").read_text(encoding="utf-8")

    build.main(["1"], folder)
    assert path.read_bytes() == stored

    edit(folder, "plt.show()", "print('here')\n1 / 0")
    with pytest.raises(SystemExit) as stopped:
        build.main(["1"], folder)
    said = str(stopped.value)
    assert said.startswith("01_data: this cell failed:")
    assert 'print("here")\n1 / 0\n\nZeroDivisionError: division by zero' in said
    assert path.read_bytes() == stored
    assert sorted(p.name for p in folder.iterdir()) == ["01_data.ipynb", "src"]


def test_a_cell_that_takes_too_long_stops_the_build(folder, monkeypatch):
    monkeypatch.setattr(build, "CELL_SECONDS", 1)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("while True:\n    pass")])
    with pytest.raises(build.BuildError, match=r"(?s)while True.*timed out"):
        build.execute(notebook, folder)


def test_the_kernel_is_this_python(tmp_path, monkeypatch):
    """Also where another kernel of the same name is installed."""
    spec = tmp_path / "kernels/python3/kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text('{"argv": ["/elsewhere/python"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert build.ThisPython(kernel_name="python3").kernel_spec.argv[0] == sys.executable


def test_ids_survive_edits_elsewhere(folder):
    script = folder / "src/01_data.py"
    before = [cell.id for cell in build.stamped(script).cells]
    edit(folder, "What is a text?", "What is not?")
    after = [cell.id for cell in build.stamped(script).cells]
    assert [a == b for a, b in zip(before, after, strict=True)].count(False) == 1
    assert len(set(after)) == len(after)  # though two cells hold the same


def test_colab_gets_a_gpu_where_a_notebook_has_a_budget_for_one(folder):
    assert build.stamped(folder / "src/02_tokens.py").metadata["accelerator"] == "GPU"
    assert "accelerator" not in build.stamped(folder / "src/01_data.py").metadata


def test_check_tells_what_is_out_of_date(folder, capsys):
    assert build.main(["--check"], folder) == 1
    told = capsys.readouterr().out
    assert (
        "01_data.py: line 4 is not as the build writes it; run `python notebooks/build.py 01`."
        in told
    )
    assert "02_tokens.ipynb does not exist" in told
    (folder / "09_lost.ipynb").write_text("{}")
    assert build.main(["--check"], folder) == 1
    assert "09_lost.ipynb has no script src/09_lost.py" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["2", "02", "02_tokens", "notebooks/src/02_tokens.py"])
def test_notebooks_are_chosen_by_number_or_name(folder, word):
    assert build.chosen([word], folder) == [folder / "src/02_tokens.py"]


def test_stamping_alone_keeps_the_outputs_of_the_same_code_and_refuses_other_code(folder, capsys):
    with pytest.raises(SystemExit, match=r"01_data: it must be run: .*build.py 01`"):
        build.main(["--stamp"], folder)
    build.main(["1", "2"], folder)
    path = folder / "01_data.ipynb"
    run = nbformat.read(path, as_version=4)

    project = folder.parent / "pyproject.toml"
    project.write_text(project.read_text().replace("your-account/llmkit", "somebody/else"))
    edit(folder, "What is a text?", "What is not?")
    assert build.main(["--check"], folder) == 1
    capsys.readouterr()
    assert build.main(["--stamp"], folder) == 0
    assert capsys.readouterr().out == "01_data\n02_tokens\n"
    assert build.main(["--check"], folder) == 0
    stamped = nbformat.read(path, as_version=4)
    assert "git+https://github.com/somebody/else@" in stamped.cells[1].source
    expected = README.replace("a/b/blob/v0.0.1", "somebody/else/blob/v1.2.3")
    expected = expected.replace("| 99 |", "| 1 |")
    assert (folder.parent / "README.md").read_text(encoding="utf-8") == expected
    old, new = ([c for c in b.cells if c.cell_type == "code"] for b in (run, stamped))
    assert [c.execution_count for c in new] == [1, 2, 3, 4, 5, 6, 7]
    assert [c.outputs for c in new] == [c.outputs for c in old]

    edit(folder, "1\n\n# %%\n1\n", "2\n\n# %%\n1\n")
    before = path.read_bytes()
    with pytest.raises(SystemExit, match="must be run"):
        build.main(["--stamp"], folder)
    assert path.read_bytes() == before


def test_an_unknown_notebook_is_refused(folder):
    assert len(build.chosen([], folder)) == 2
    with pytest.raises(SystemExit, match="no notebook 09; there are: 01_data, 02_tokens"):
        build.main(["9"], folder)


# ------------------------------------------------------------------------------------ nbval


def sanitized(text: str) -> str:
    """By nbval's own function, with our patterns as nbval reads them."""
    patterns = get_sanitize_patterns((ROOT / "tests/nbval_sanitize.cfg").read_text("ascii"))
    cell = SimpleNamespace(parent=SimpleNamespace(sanitize_patterns=dict(patterns)))
    return IPyNbCell.sanitize(cell, text)


@pytest.mark.parametrize(
    "number",
    ["1.873", "1,234", "1_234_567", "-0.5", "−0.5", "+3", "1e-05", "2.5E+3", ".5", "12", "   7"],
)
def test_a_number_after_about_is_not_compared(number):
    assert sanitized(f"val loss ≈ {number} nats, 65") == "val loss ≈ # nats, 65"
    assert sanitized(f"(≈{number}%)") == "(≈ #%)"


@pytest.mark.parametrize(
    "text",
    [
        "val loss 1.873",
        "65 ≈ x",
        "≈ nan",
        "≈ inf",
        "≈\n1.873",
        "about 3",
        "1.2 ~ 1.3",
    ],
)
def test_everything_else_is_compared(text):
    assert sanitized(text) == text


def test_only_the_number_itself_is_blanked():
    assert sanitized("≈ 1, 2 and ≈ 3. Then ≈ 4,56") == "≈ #, 2 and ≈ #. Then ≈ #,56"
    assert sanitized("≈ 1.5e, ≈ 1.2.3") == "≈ #e, ≈ #.3"


def test_nbval_runs_what_it_should_where_it_should(tmp_path):
    """pytest in a copy of this project's frame: the environment reaches the kernel, a number after
    ≈ may differ, another output may not, and only the notebooks themselves are collected. In a
    worker, as in every run."""
    for name in ("pyproject.toml", "notebooks/conftest.py", "notebooks/build.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "tests/offline", tmp_path / "tests/offline")
    shutil.copy(ROOT / "tests/nbval_sanitize.cfg", tmp_path / "tests")
    environment = """
import os
print(*map(os.environ.get, ["LLMKIT_DEVICE", "LLMKIT_CORPUS", "LLMKIT_DATA"]))
print(*map(os.environ.get, ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY"]))
"""
    connect = """
import socket
try:
    socket.create_connection(("192.0.2.1", 80))
except OSError as error:
    print(error)
"""
    refused = "This run has no network on purpose, and something asked for 192.0.2.1.\n"
    seen = "cpu embedded None\n1 1 PASSIVE\n"
    cells = [(environment, seen), (connect, refused), ("print('≈ 1.5')", "≈ 99\n")]
    cells += [("print(2)", "3\n")]
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                source,
                execution_count=count,
                outputs=[nbformat.v4.new_output("stream", name="stdout", text=text)],
            )
            for count, (source, text) in enumerate(cells, 1)
        ]
    )
    for name in ("notebooks/01_data.ipynb", "notebooks/.ipynb_checkpoints/01_data.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nbformat.write(notebook, tmp_path / name)
    (tmp_path / "notebooks/src").mkdir()
    (tmp_path / "notebooks/src/test_x.py").write_text("def test_x(): pass")
    outside = {name: value for name, value in os.environ.items() if name not in build.ONE_THREAD}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n1", "-p", "no:cacheprovider", "notebooks"],
        cwd=tmp_path,
        env=outside | {"LLMKIT_DATA": "elsewhere", "LLMKIT_DEVICE": "cuda"},
        capture_output=True,
        encoding="utf-8",
    )
    assert "1 failed, 3 passed" in done.stdout, done.stdout
    assert "FAILED notebooks/01_data.ipynb::Cell 3" in done.stdout


def test_one_thread_unless_the_environment_says_otherwise(monkeypatch):
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])  # of this very process
    for name in build.ONE_THREAD:
        monkeypatch.delenv(name, raising=False)
    assert build.ONE_THREAD.items() <= build.kernel_environment().items()
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert build.kernel_environment()["OMP_NUM_THREADS"] == "4"


def test_the_guard_lets_this_machine_through_and_nothing_else():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"""
import socket
for host in ("127.0.0.1", "localhost"):
    socket.create_connection((host, {port})).close()
for host in ("example.org", "192.0.2.1", "::ffff:192.0.2.1", b"example.org"):
    for ask in (lambda: socket.create_connection((host, 80), timeout=1),
                lambda: socket.socket().connect((host, 80)),
                lambda: socket.socket().connect_ex((host, 80)),
                lambda: socket.getaddrinfo(host, 80)):
        try:
            ask()
        except OSError as error:
            assert "no network on purpose" in str(error), error
        else:
            raise SystemExit("reached " + str(host))
"""
        environment = os.environ | {"PYTHONPATH": str(build.OFFLINE)}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
