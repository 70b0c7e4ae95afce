"""The benchmark scripts: what they share, and that none of them rots."""

import argparse
import json
import runpy
import sys
from pathlib import Path

import pytest

import llmkit
from llmkit import plots
from llmkit.commands.recipe import MODELS

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "common")


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import common

    return common


@pytest.fixture
def run(common, monkeypatch):
    """Run a script in this process as the command line would."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [str(FOLDER / f"{name}.py"), *arguments])
        return runpy.run_path(sys.argv[0], run_name="__main__")

    return run


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_what_it_does(run, capsys, name):
    with pytest.raises(SystemExit) as stopped:
        run(name, "--help")
    assert stopped.value.code == 0
    assert "--quick" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["batches", "bpe", "encode", "growth", "ladder", "tokens_per_second"]
)
def test_rehearsals_write_a_result_where_told_and_only_there(
    run, monkeypatch, tmp_path, capsys, name
):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)  # peers: slow to import
    before = {path: path.stat().st_mtime_ns for path in (FOLDER / "results").iterdir()}
    run(name, "--quick", "--out", str(tmp_path))
    result = json.loads((tmp_path / f"{name}-cpu.json").read_text())
    assert {"date", "hardware", "versions", "command"} <= set(result)
    assert result["command"] == f"python benchmarks/{name}.py --quick --out PATH"
    assert (tmp_path / f"{name}-cpu.png").exists() is (name not in ("bpe", "encode"))
    assert {path: path.stat().st_mtime_ns for path in (FOLDER / "results").iterdir()} == before
    assert capsys.readouterr().out


def test_the_dial_is_measured_beside_the_minutes_model(run, monkeypatch, tmp_path):
    monkeypatch.setattr("llmkit.commands.recipe.PROBE", 0.0)
    tiny = dict(block_size=16, n_layer=1, n_head=2, n_embd=16)
    for kind in MODELS:
        monkeypatch.setitem(MODELS, kind, MODELS[kind] | tiny)
    monkeypatch.setattr("llmkit.commands.recipe.LADDER", ((1, 2, 8), (1, 2, 16)))
    where = ("--corpus", "embedded", "--out", str(tmp_path))
    run("dial", "--quick", *where, "--budgets", "1", "3", "--seeds", "4", "5")
    result = json.loads((tmp_path / "dial-embedded-cpu.json").read_text())
    told = [(run["way"], run["budget"], run["seed"]) for run in result["runs"]]
    dial = [("dial", budget, seed) for budget in (1, 3) for seed in (4, 5)]
    assert told == [("stretched", 1, 0), *dial[:2], ("stretched", 3, 0), *dial[2:]]
    assert result["ours"].keys() == result["peer"].keys() == {"1.0", "3.0"}
    for run_ in result["runs"]:
        assert run_["best"] <= run_["loss"] + 1e-6
    assert (tmp_path / "dial-embedded-cpu.png").exists()


@pytest.mark.parametrize("seconds", [1.0, 20.0])  # a slow machine and a fast one
def test_a_run_in_equal_time_is_measured_without_held_out_text(common, monkeypatch, seconds):
    """The recipe keeps the best weights by held-out text, of which the race's training has none."""
    script = runpy.run_path(str(FOLDER / "time_to_loss.py"))
    tiny = dict(n_layer=1, n_head=2, n_embd=16)
    for kind in MODELS:
        monkeypatch.setitem(MODELS, kind, MODELS[kind] | tiny)
    options = argparse.Namespace(device="cpu", quick=True, dtype=None)
    text = "abcdefgh" * 200
    train_ids, val_ids = llmkit.split(llmkit.CharTokenizer.from_text(text).encode(text))
    run = script["run_ours"](options, seconds, 0, train_ids, val_ids, 8)
    assert run["steps"] == 5
    assert 0 < run["loss"] < 3


def test_the_law_is_measured_once_and_kept(run, tmp_path, capsys):
    where = ("--quick", "--out", str(tmp_path), "--seeds", "5", "6")
    run("scaling", *where)
    file = tmp_path / "scaling-embedded-cpu.json"
    result = json.loads(file.read_text())
    kinds = [told["kind"] for told in result["runs"]]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "grid": 30,
        "held back": 2,
        "repeated": 2,
    }
    [low, expected, high] = result["predicted"]
    assert low <= expected <= high
    assert expected == pytest.approx(result["peer"])
    assert len(result["ours"]) == 2
    assert file.with_suffix(".png").exists()
    capsys.readouterr()
    run("scaling", *where)
    assert capsys.readouterr().out == ""  # nothing was measured again
    assert json.loads(file.read_text())["runs"] == result["runs"]


def test_the_table_of_the_runs_is_that_of_the_results(common):
    script = runpy.run_path(str(FOLDER / "scaling.py"))
    stored = (FOLDER.parent / "data/scaling.csv").read_text(encoding="utf-8")
    assert script["table"]() == stored


def test_every_script_is_in_the_list(common):
    readme = (FOLDER / "README.md").read_text()
    assert [name for name in SCRIPTS if f"{name}.py" not in readme] == []


def test_contenders_take_turns_and_the_warm_up_does_not_count(common):
    calls = []
    clock = iter(range(100)).__next__
    times = common.alternate(
        lambda: calls.append("a"), lambda: calls.append("b"), repeats=3, warmup=2, clock=clock
    )
    assert calls == ["a", "b"] * 5
    assert times == [[1, 1, 1], [1, 1, 1]]


def test_a_contender_may_time_itself(common):
    seconds = iter([9.0, 1.0, 2.0])
    assert common.alternate(lambda: next(seconds), repeats=2, clock=None) == [[1.0, 2.0]]


def test_ratios_are_of_medians_and_their_spread_is_of_rounds(common):
    assert common.compare([1.0, 2.0, 4.0], [6.0, 6.0, 5.0]) == {
        "ours": 2.0,
        "peer": 6.0,
        "ratio": 3.0,
        "ratio_spread": [1.25, 6.0],
    }


def test_a_peers_module_leaves_no_trace(common, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peer", ours := object())
    for name in ("one", "two"):
        folder = tmp_path / name / "peer"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "model.py").write_text(f"from peer.helper import x\nNAME = {name!r} + x")
        (folder / "helper.py").write_text("x = '!'")
    path, modules = list(sys.path), set(sys.modules)
    found = [common.import_from(tmp_path / name, "peer.model").NAME for name in ("one", "two")]
    assert found == ["one!", "two!"]
    assert sys.path == path
    assert set(sys.modules) == modules
    assert sys.modules["peer"] is ours
    with pytest.raises(FileNotFoundError, match="there is no module"):
        common.import_from(tmp_path / "one", "peer.other")


def test_results_say_when_where_and_how(common, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/x.py", "--nanogpt", "/home/me/nanoGPT", "--n=1"])
    picture = plots.bars(["a"], [1], "A picture", xlabel="x")
    path = common.write_result("x", "cpu", {"ours": 1, "versions": {"a": "2"}}, picture, tmp_path)
    result = json.loads(path.read_text())
    assert path.name == "x-cpu.json"
    assert result["ours"] == 1
    assert result["versions"] == {"a": "2"}  # the script knows better
    assert result["command"] == "python benchmarks/x.py --nanogpt PATH --n=1"
    assert result["hardware"] == common.hardware("cpu")
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert common.write_result("x", "cpu", {}, folder=None) is None


def test_only_real_runs_write_by_default(common, monkeypatch):
    for arguments, out in [([], common.RESULTS), (["--quick"], None), (["--out", "x"], "x")]:
        monkeypatch.setattr(sys, "argv", ["x.py", *arguments])
        assert common.parse(common.parser("Words.\n\nMore.", "nanogpt")).out == out


def test_versions(common, tmp_path):
    found = common.versions("torch", "no-such-package", missing=None, unversioned=tmp_path)
    assert set(found) == {"python", "torch", "unversioned"}
    assert found["unversioned"] == "unknown"
