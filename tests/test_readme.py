"""The frame: what the README promises, CI runs and pyproject.toml allows is one and the same, and
the code is as ruff wants it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import build
import pytest
import tomllib
import yaml
from packaging.requirements import Requirement

ROOT = build.NOTEBOOKS.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAIN = "python -m pip install -q -r requirements.txt && python -m llmkit train"
TESTS = "python -m pip install -q -r requirements.txt && python -m pytest"


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


def test_the_readme_has_a_badge_for_every_notebook():
    badges = re.findall(r"\]\((https://colab\.research\.google\.com/github/[^)]+)\)", README)
    assert badges == [build.colab(script) for script in build.scripts()]


def test_links_in_the_readme_lead_somewhere():
    targets = re.findall(r"\]\(([^)\s]+)", README) + re.findall(r'(?:src|href)="([^"]+)"', README)
    local = [target.split("#")[0] for target in targets if not re.match(r"\w+:|#", target)]
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_the_pinned_environment_is_within_the_ranges():
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert lines[-1] == "-e ."
    pins = dict(line.split("==") for line in lines[:-1])
    extras = [need for extra in project["optional-dependencies"].values() for need in extra]
    for need in map(Requirement, project["dependencies"] + extras):
        assert need.name in pins, f"requirements.txt does not pin {need.name}"
        assert need.specifier.contains(pins[need.name]), f"{need} excludes {pins[need.name]}"


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
