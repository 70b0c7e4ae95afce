"""What a project owes those who join it: one version, a wheel with its types, a page of the API, a
changelog, a citation, and commands that exist."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import shlex
import subprocess
import zipfile
from email import message_from_string
from pathlib import Path

import api_page
import build
import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from test_readme import PROJECT, commands

import llmkit

ROOT = build.NOTEBOOKS.parent
PAGE = api_page.page()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def tracked(*patterns: str) -> set[str]:
    """The files of the repository, by git."""
    command = ["git", "ls-files", "-z", *patterns]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    return set(filter(None, done.stdout.split("\0")))


def test_the_wheel_has_the_version_the_types_and_all_of_the_package(tmp_path):
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        [about] = [name for name in names if name.endswith(".dist-info/METADATA")]
        about = message_from_string(file.read(about).decode())
    assert about["Version"] == llmkit.__version__
    assert about["Requires-Python"] == PROJECT["project"]["requires-python"]
    assert "llmkit/py.typed" in names
    assert tracked("llmkit") <= names
    assert {f"llmkit/_{name}" for name in tracked("data")} <= names


def test_the_citation_is_of_this_version():
    """Its form was checked by `cffconvert --validate`."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == llmkit.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["repository-code"] == build.repository()


def test_the_changelog_keeps_its_form():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *released = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert first == "[Unreleased]"
    versions = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", line) for line in released]
    assert versions[0][1] == llmkit.__version__
    dates = [version[2] for version in versions]
    assert dates == sorted(dates, reverse=True)
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_names_that_the_changelog_calls_new_exist():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased = text.split("\n## ")[1].split("### Removed")[0]
    names = re.findall(r"`(llmkit\.[\w.]+)`", unreleased)
    assert names
    for name in names:
        pkgutil.resolve_name(name)


def test_the_page_of_the_api_is_up_to_date():
    assert api_page.PAGE.read_text(encoding="utf-8") == PAGE, "run `python tests/api_page.py`"


@pytest.mark.parametrize("name", llmkit.__all__)
def test_the_page_of_the_api_has_every_name_of_llmkit_as_python_sees_it(name):
    """The page is made from the source alone; here the arguments are compared with `inspect`'s."""
    given = getattr(llmkit, name)
    if inspect.ismodule(given):
        assert re.search(rf"^###? .*\bllmkit\.{name}$", PAGE, re.MULTILINE)
        return
    [written] = re.findall(rf"^- \*\*`{name}(\(.*\).*?)`\*\*: .", PAGE, re.MULTILINE)
    arguments = ast.parse(f"def f{written}: ...").body[0].args
    names = [node.arg for node in ast.walk(arguments) if isinstance(node, ast.arg)]
    assert sorted(names) == sorted(inspect.signature(given).parameters)


def test_contributing_has_four_commands_and_they_exist():
    edit, make, look, test = map(shlex.split, commands(CONTRIBUTING)[:4])
    [script] = build.chosen([make[-1]])
    assert make[:2] == ["python", "notebooks/build.py"]
    assert [ROOT / edit[-1], ROOT / look[-1]] == [script, build.notebook_of(script)]
    assert test == ["python", "-m", "pytest", look[-1]]


def test_contributing_says_where_things_live_in_five_lines():
    [section] = re.findall(
        r"^## Where things live\n(.*?)^## ", CONTRIBUTING, re.MULTILINE | re.DOTALL
    )
    told = [line for line in section.splitlines() if line]
    assert len(told) == 5
    assert all(line.startswith("- ") for line in told)
    folders = {Path(name).parts[0] for name in tracked() if "/" in name}
    assert {folder for folder in folders if f"`{folder}/" not in section} <= {".ci", ".github"}


def test_files_that_contributing_names_exist():
    named = re.findall(r"`((?:llmkit|tests|notebooks)/[\w./-]*\w)`", CONTRIBUTING)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_hooks_before_a_commit_need_nothing_from_outside():
    settings = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    [local] = settings["repos"]
    assert local["repo"] == "local"
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    assert [hook["entry"] for hook in local["hooks"]] == [
        "python -m ruff check",
        "python -m ruff format --check",
        "python notebooks/build.py --check",
    ]


def test_forms_for_issues_have_what_github_wants():
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.name for form in forms] == ["bug.yml", "config.yml", "notebook.yml"]
    for form in (forms[0], forms[2]):
        content = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= content.keys()
        ids = [field["id"] for field in content["body"]]
        assert len(set(ids)) == len(ids)
        assert all(field["attributes"]["label"] for field in content["body"])
