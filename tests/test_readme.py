"""The frame: what the README promises, CI runs and pyproject.toml allows is one and the same, and
the code is as ruff wants it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import build
import nbformat
import pytest
import series_map
import tomllib
import yaml
from packaging.requirements import Requirement
from test_drawings import faults

from llmkit import CharTokenizer, load_text

ROOT = build.NOTEBOOKS.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAIN = "python -m pip install -q -r requirements.txt && python -m llmkit train"
TESTS = "python -m pip install -q -r requirements-dev.txt && python -m pytest"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PYTHONS = [
    line.removeprefix("Programming Language :: Python :: ")
    for line in PROJECT["project"]["classifiers"]
]


def commands(markdown: str) -> list[str]:
    """The lines of its shell blocks."""
    blocks = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_the_readme_has_the_two_commands():
    assert TRAIN in commands(README)
    assert TESTS in commands(README)


def test_ci_runs_the_readme_command():
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert script.splitlines()[-1] == TESTS
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["tests"]["steps"]
    assert steps[-1]["run"] == TESTS


def test_actions_are_pinned_to_a_commit_whose_version_stands_beside_it():
    """A tag can be moved by whoever breaks into an action's repository; a commit cannot."""
    workflows = (ROOT / ".github").rglob("*.yml")
    used = re.findall(r"uses:.*", "\n".join(path.read_text(encoding="utf-8") for path in workflows))
    pinned = re.compile(r"uses: \S+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert used
    assert [line for line in used if not pinned.fullmatch(line)] == []


def test_the_readme_has_a_badge_for_every_notebook():
    badges = re.findall(r"\]\((https://colab\.research\.google\.com/github/[^)]+)\)", README)
    assert badges == [build.colab(script) for script in build.scripts()]


def test_the_table_has_every_notebook_with_its_minutes_and_a_level():
    row = re.compile(r"^\| (\w+) \| \[(.+?)\]\((.+?)\) \| [^|]+ \| (\d+) \| (\w+) \| ", re.M)
    told = row.findall(README)
    expected = []
    for script in build.scripts():
        number, name = build.title(script).split(" · ")
        cells = nbformat.read(build.notebook_of(script), 4).cells
        [minutes] = re.findall(r"^About (\d+) minutes to read", cells[0].source, re.MULTILINE)
        expected.append((number, name, f"notebooks/{script.stem}.ipynb", minutes))
    assert [each[:4] for each in told] == expected, "run `python notebooks/build.py --stamp`"
    assert {each[4] for each in told} == {"start", "middle", "deep"}


def test_what_it_says_of_the_notebooks_holds():
    assert f"**{len(build.scripts())} Jupyter notebooks" in README
    assert "Each notebook ends in five exercises or more" in README
    for script in build.scripts():
        checked = re.findall(r'^check\("([\w.]+)"', script.read_text(encoding="utf-8"), re.M)
        assert len(set(checked)) >= 5, script.stem


def test_the_map_is_current_has_every_notebook_and_can_be_read():
    assert "](notebooks/series_map.svg)" in README
    stored = series_map.SVG.read_text(encoding="utf-8")
    assert stored == series_map.svg(), "run `python notebooks/series_map.py`"
    stations = [station for row in series_map.STATIONS for station in row]
    numbers = " ".join(numbers for _name, numbers, _draw in stations).split()
    assert numbers == [build.number(script) for script in build.scripts()]
    assert list(faults(series_map.series_map())) == []


def test_the_ids_on_the_map_are_those_of_its_text():
    ids = CharTokenizer.from_text(load_text("embedded")).encode(series_map.START)
    assert tuple(map(str, ids.tolist())) == series_map.IDS


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    local = [target.split("#")[0] for target in targets if not re.match(r"\w+:|#", target)]
    assert [target for target in local if not (ROOT / target).exists()] == []


def lines(name: str) -> list[str]:
    """A requirements file without its comments."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_pinned_environments_are_within_the_ranges():
    *run, last = lines("requirements.txt")
    first, *dev = lines("requirements-dev.txt")
    assert (last, first) == ("-e .", "-r requirements.txt")
    run, both = (dict(line.split("==") for line in some) for some in (run, run + dev))
    extras = [
        need for extra in PROJECT["project"]["optional-dependencies"].values() for need in extra
    ]
    for pins, needs in ((run, PROJECT["project"]["dependencies"]), (both, extras)):
        for need in map(Requirement, needs):
            assert need.name in pins, f"no requirements file pins {need.name}"
            assert need.specifier.contains(pins[need.name]), f"{need} excludes {pins[need.name]}"


def test_nothing_is_pinned_twice():
    names = [
        line.split("==")[0] for line in lines("requirements.txt") + lines("requirements-dev.txt")
    ]
    assert len(names) == len(set(names))


def test_the_python_versions_agree():
    least = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert [f"3.{int(least[2:]) + i}" for i in range(len(PYTHONS))] == PYTHONS
    assert f"llmkit by itself: {least}; tested up to {PYTHONS[-1]})" in README
    assert PROJECT["tool"]["mypy"]["python_version"] == least
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{least.replace('.', '')}"
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    pinned, newest = workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert f"You need Python {pinned} or newer" in README
    assert newest == PYTHONS[-1]
    assert workflow["jobs"]["pythons"]["strategy"]["matrix"]["python"] == [least, newest]


@pytest.fixture
def small_room(tmp_path) -> Path:
    """A folder of links to what `pip install -r requirements.txt` installs, and nothing else."""
    room = tmp_path / "site-packages"
    room.mkdir()
    needs, seen = [Requirement(line) for line in lines("requirements.txt")[:-1]], set()
    while needs:
        need = needs.pop()
        package = distribution(need.name)
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (room / top).exists():
                (room / top).symlink_to(package.locate_file(top))
        for other in map(Requirement, package.requires or []):
            extras = ["", *need.extras]
            wanted = not other.marker or any(other.marker.evaluate({"extra": e}) for e in extras)
            if wanted and str(other) not in seen:
                seen.add(str(other))
                needs.append(other)
    return room


def test_requirements_txt_is_enough_to_train_and_for_notebooks_01_to_10(small_room, tmp_path):
    """Their imports, and a training of one step, in a Python that sees only what it names."""
    statements = []
    for script in build.scripts()[:10]:
        tree = ast.parse(script.read_text(encoding="utf-8"))
        statements += [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
    train = ["train", "--steps", "1", "--out", str(tmp_path / "run")]
    code = [*map(ast.unparse, statements), "from llmkit.__main__ import main"]
    assert not (small_room / "pytest").exists()
    done = subprocess.run(
        [sys.executable, "-S", "-c", "\n".join([*code, f"raise SystemExit(main({train}))"])],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(small_room), str(ROOT)])},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/report.json").exists()


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff(check):
    command = [sys.executable, "-m", "ruff", *check, "--quiet", ROOT]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout


def test_no_file_names_the_machine_it_was_written_on():
    """Paths of one machine are of no use to another. (Notebooks: see test_notebooks.py.)"""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    folders = [re.escape(str(folder)) for folder in (ROOT, Path.home()) if len(folder.parts) > 1]
    pattern = rf"(?<![\w.])(?:{'|'.join(folders)})/"
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            found = re.search(pattern, path.read_text(encoding="utf-8", errors="ignore"))
            assert not found, f"{name} has the path {found[0]}"
