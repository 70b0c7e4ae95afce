"""The command line: what it prints and leaves behind, and how it speaks of errors."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import llmkit
from llmkit import checkpoint
from llmkit.__main__ import main
from llmkit.commands.recipe import MODELS, RUNS, SMALL, recipe

TEXT = (
    "MARA:\nThe river keeps no ledger of the rain,\nAnd so must I.\n\nTOM:\nThen who pays?\n\n" * 40
)


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    """The recipes' numbers of layers and steps are for a minute's run; here seconds matter."""
    tiny = dict(block_size=16, n_layer=1, n_head=2, n_embd=16)
    for kind in MODELS:
        monkeypatch.setitem(MODELS, kind, MODELS[kind] | tiny)
    monkeypatch.setattr("llmkit.commands.recipe.LADDER", ((1, 2, 8), (1, 2, 16)))
    monkeypatch.setattr("llmkit.commands.recipe.PROBE", 0.0)


def killed(*_, **__):
    raise KeyboardInterrupt


def test_train_reports_what_it_did(tmp_path, text_file, capsys):
    out = tmp_path / "run"
    assert main(["train", "--text", str(text_file), "--steps", "4", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads((out / "report.json").read_text())
    assert set(report) == {
        "corpus", "val_loss", "val_perplexity", "bits_per_char", "val_tokens",
        "train_seconds", "steps", "best_step", "tokens_seen", "seed",
    }  # fmt: skip
    model, tokenizer = checkpoint.load(out / "checkpoint")
    _, val_ids = llmkit.split(tokenizer.encode(TEXT))
    measured = llmkit.evaluate(model, val_ids, characters=len(val_ids) - 1)
    assert report["val_loss"] == pytest.approx(measured.loss, abs=1e-6)
    assert report["bits_per_char"] == pytest.approx(measured.bits_per_char, abs=1e-6)
    assert report["val_perplexity"] == pytest.approx(measured.perplexity, abs=1e-5)
    assert report["val_tokens"] == len(val_ids) - 1 == measured.tokens
    assert (report["steps"], report["seed"]) == (4, 1337)
    assert report["tokens_seen"] == 4 * 16 * model.config.block_size
    assert any(f"{report['val_loss']:.4f}" in line for line in lines)
    assert any(f"{report['val_perplexity']:.3f}" in line for line in lines)
    assert lines[-3].endswith("checkpoint")
    assert lines[-2].endswith("loss.png")
    assert lines[-1].endswith("report.json")
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert checkpoint.load_state(out / "checkpoint") is None


def test_the_same_seed_gives_the_same_report(tmp_path, text_file):
    losses = []
    for seed in ("3", "3", "4"):
        out = tmp_path / f"run{len(losses)}"
        arguments = ["--text", str(text_file), "--steps", "3", "--seed", seed, "--out", str(out)]
        assert main(["train", *arguments]) == 0
        losses.append(json.loads((out / "report.json").read_text())["val_loss"])
    assert losses[0] == losses[1] != losses[2]


def test_the_default_is_the_embedded_corpus(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--steps", "1"]) == 0
    assert json.loads(Path("runs/embedded/report.json").read_text())["corpus"] == "embedded"


def test_interrupted_then_resumed_it_ends_where_an_uninterrupted_run_ends(
    tmp_path, text_file, monkeypatch, capsys
):
    """A real Ctrl-C signal, sent at the fifth step."""

    def interrupt(run):
        if run.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    arguments = ["train", "--text", str(text_file), "--steps", "12", "--out"]
    out, whole = tmp_path / "interrupted", tmp_path / "whole"
    with monkeypatch.context() as patch:
        patch.setattr(llmkit, "ProgressBar", lambda **_: interrupt)
        assert main([*arguments, str(out)]) == 130
    assert "--resume goes on" in capsys.readouterr().out
    assert checkpoint.load_state(out / "checkpoint")["step"] == 6
    assert main([*arguments, str(out), "--resume"]) == 0
    assert main([*arguments, str(whole)]) == 0
    resumed, expected = (json.loads((f / "report.json").read_text()) for f in (out, whole))
    assert resumed["val_loss"] == expected["val_loss"]
    assert resumed["steps"] == expected["steps"] == 12


def test_a_run_is_not_replaced_unasked(tmp_path, text_file, capsys):
    """A finished one, and one that can be resumed; asked for, nothing of it is left."""
    out = tmp_path / "run"
    arguments = ["train", "--text", str(text_file), "--steps", "2", "--out", str(out)]
    assert main(arguments) == 0
    first = (out / "report.json").read_text()
    assert main(arguments) == 2
    assert "holds a finished run: give --overwrite to lose it" in capsys.readouterr().err
    assert (out / "report.json").read_text() == first
    assert main([*arguments, "--overwrite", "--seed", "5"]) == 0
    assert json.loads((out / "report.json").read_text())["seed"] == 5
    (out / "report.json").unlink()
    assert main(arguments) == 2
    assert "holds a run that --resume goes on with" in capsys.readouterr().err


def test_an_overwritten_run_is_gone_also_where_the_new_one_is_cut_short(
    tmp_path, text_file, monkeypatch
):
    out = tmp_path / "run"
    arguments = ["train", "--text", str(text_file), "--steps", "2", "--out", str(out)]
    assert main(arguments) == 0

    def fail(run):
        raise FloatingPointError("as planned")

    monkeypatch.setattr(llmkit, "ProgressBar", lambda **_: fail)
    assert main([*arguments, "--overwrite"]) == 2
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_a_foreign_folder_is_not_overwritten(tmp_path, text_file, capsys):
    (tmp_path / "run/checkpoint").mkdir(parents=True)
    (tmp_path / "run/checkpoint/thesis.txt").write_text("ten years")
    arguments = ["train", "--text", str(text_file), "--steps", "1", "--out", str(tmp_path / "run")]
    for words in ([], ["--overwrite"], ["--resume"]):
        assert main([*arguments, *words]) == 2
    assert (tmp_path / "run/checkpoint/thesis.txt").read_text() == "ten years"
    assert capsys.readouterr().err.count("\n") == 3


def test_two_trainings_do_not_share_a_folder(tmp_path, text_file, monkeypatch, capsys):
    out = tmp_path / "run"
    arguments = ["train", "--text", str(text_file), "--steps", "3", "--out", str(out)]
    statuses = []

    def start_another(run):
        with monkeypatch.context() as patch:
            patch.setattr(llmkit, "ProgressBar", lambda **_: lambda run: None)
            statuses.extend(main([*arguments, *words]) for words in ([], ["--resume"]))

    monkeypatch.setattr(llmkit, "ProgressBar", lambda **_: start_another)
    assert main(arguments) == 0
    assert statuses == [2] * 6
    assert capsys.readouterr().err.count(f"another training writes to {out}: wait") == 6


def test_minutes_are_for_the_steps_that_this_machine_makes_in_them(
    tmp_path, text_file, capsys, monkeypatch
):
    """Interrupted, the same command with --resume goes on with the run's own steps."""
    out = tmp_path / "run"
    arguments = ["train", "--text", str(text_file), "--minutes", "0.01", "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr("llmkit.commands.recipe.pace", lambda *_: 0.1)
        patch.setattr("llmkit.commands.train.plots.loss_curves", killed)
        assert main(arguments) == 130
    assert "6 steps" in capsys.readouterr().out
    assert main([*arguments, "--resume"]) == 0
    assert json.loads((out / "report.json").read_text())["steps"] == 6


def test_a_run_keeps_its_settings_when_it_is_resumed(tmp_path, text_file, capsys, monkeypatch):
    """The seed need not be said again; another one, or another number of steps, is refused."""
    out = tmp_path / "run"
    arguments = ["train", "--text", str(text_file), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr("llmkit.commands.train.plots.loss_curves", killed)
        assert main([*arguments, "--steps", "3", "--seed", "7"]) == 130
    capsys.readouterr()
    for option, told in {"steps": "steps 3, not 4", "seed": "seed 7, not 4"}.items():
        assert main([*arguments, "--resume", f"--{option}", "4"]) == 2
        assert f"{out} has {told}: leave --{option} out" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert (report["steps"], report["seed"]) == (3, 7)


def test_a_run_killed_before_its_report_is_ended_by_resume(tmp_path, text_file, monkeypatch):
    """After the last step, before the report; and after the report, before the last save."""
    out, whole = tmp_path / "run", tmp_path / "whole"
    arguments = ["train", "--text", str(text_file), "--steps", "3", "--out"]
    assert main([*arguments, str(whole)]) == 0
    for name, words in (("plots.loss_curves", []), ("checkpoint.save", ["--resume"])):
        with monkeypatch.context() as patch:
            if name == "checkpoint.save":  # the Checkpointer's is the same function
                patch.setattr(llmkit, "Checkpointer", lambda *_, **__: lambda run: None)
            patch.setattr(f"llmkit.commands.train.{name}", killed)
            assert main([*arguments, str(out), *words]) == 130
    assert main([*arguments, str(out), "--resume"]) == 0
    reports = [json.loads((f / "report.json").read_text()) for f in (out, whole)]
    for report in reports:
        del report["train_seconds"]
    assert reports[0] == reports[1]
    assert (out / "loss.png").exists()
    assert checkpoint.load_state(out / "checkpoint") is None


def test_what_a_run_killed_in_its_report_left_is_cleared_away(tmp_path, text_file):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".report.json.saving-123").write_text("{")
    assert main(["train", "--text", str(text_file), "--steps", "1", "--out", str(out)]) == 0
    assert not list(out.glob(".*saving*"))


def test_a_run_killed_before_its_first_checkpoint_is_told_how_to_start(tmp_path, text_file, capsys):
    out = tmp_path / "run"
    out.mkdir()
    arguments = ["train", "--text", str(text_file), "--steps", "1", "--out", str(out)]
    assert main([*arguments, "--resume"]) == 2
    error = capsys.readouterr().err
    assert error == f"error: there is no checkpoint in {out} yet: start without --resume\n"
    assert main(arguments) == 0


def test_ctrl_c_ends_without_a_traceback(tmp_path, text_file, monkeypatch, capsys):
    """The second one while training, and any at another time."""

    def twice(run):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    arguments = ["train", "--text", str(text_file), "--steps", "3", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(llmkit, "ProgressBar", lambda **_: twice)
    assert main(arguments) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_it_runs_as_a_module(tmp_path, text_file):
    """`python -m llmkit`, in a process of its own: results on stdout, the bar on stderr."""
    command = [sys.executable, "-m", "llmkit", "train", "--text", str(text_file), "--steps", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "a sample:" in done.stdout
    assert "training: 100%" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus", "embeded"], "embedded"),
        (["--text", "no/such/file.txt"], "no/such/file.txt"),
        (["--steps", "0"], "steps must be at least 1"),
        (["--seed", "-1"], "seed"),
        (["--minutes", "0"], "minutes must be above 0"),
        (["--minutes", "nan"], "minutes must be above 0"),
        (["--device", "cuda:99"], "cuda:99"),
    ],
)
def test_bad_arguments_get_one_sentence(tmp_path, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_text_too_short_or_a_missing_run_gets_one_sentence(tmp_path, capsys):
    short = tmp_path / "short.txt"
    short.write_text("ab", encoding="utf-8")
    assert main(["train", "--text", str(short), "--out", str(tmp_path / "run")]) == 2
    assert main(["train", "--resume", "--out", str(tmp_path / "none")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ")
    assert "checkpoint" in second


def test_a_finished_run_cannot_be_resumed(tmp_path, text_file, capsys):
    arguments = ["train", "--text", str(text_file), "--steps", "1", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert main([*arguments, "--resume"]) == 2
    assert "finished" in capsys.readouterr().err


def test_help_names_the_corpora(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in llmkit.corpora())


@pytest.mark.parametrize("tokens", [120, SMALL - 1, SMALL, 10**7])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_recipe_can_be_trained(tokens, device):
    """The GPU's recipes too: on the CPU here, small, with few steps, but otherwise as they are."""
    model_config, config = recipe(tokens, 65, device, steps=2, seed=5)
    assert (config.steps, config.seed) == (2, 5)
    assert model_config.block_size < tokens
    assert set(MODELS) == set(RUNS)
    ids = torch.randint(65, (min(tokens, 2000),))
    config = replace(config, batch_size=2, dtype="float32")
    history = llmkit.train(llmkit.GPT(model_config), ids, ids[:600], config)
    assert len(history.loss) == 2
