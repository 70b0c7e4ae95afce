"""The command line: what it prints and leaves behind, and how it speaks of errors."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import llmkit
from llmkit import checkpoint
from llmkit.__main__ import main
from llmkit.recipes import MODELS, RUNS, SMALL, recipe

TEXT = (
    "MARA:\nThe river keeps no ledger of the rain,\nAnd so must I.\n\nTOM:\nThen who pays?\n\n" * 40
)


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_train_reports_what_it_did(tmp_path, text_file, capsys):
    out = tmp_path / "run"
    assert main(["train", "--text", str(text_file), "--steps", "4", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads((out / "report.json").read_text())
    assert set(report) == {
        "corpus", "val_loss", "val_perplexity", "bits_per_char", "val_tokens",
        "train_seconds", "steps", "tokens_seen", "seed",
    }  # fmt: skip
    model, tokenizer = checkpoint.load(out / "checkpoint")
    _, val_ids = llmkit.split(tokenizer.encode(TEXT))
    measured = llmkit.evaluate(model, val_ids, characters=len(val_ids) - 1)
    assert report["val_loss"] == pytest.approx(measured.loss, abs=1e-6)
    assert report["bits_per_char"] == pytest.approx(measured.bits_per_char, abs=1e-6)
    assert report["val_perplexity"] == pytest.approx(measured.perplexity, abs=1e-5)
    assert report["val_tokens"] == len(val_ids) - 1 == measured.tokens
    assert (report["steps"], report["seed"]) == (4, 1337)
    assert report["tokens_seen"] == 4 * 32 * model.config.block_size
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


def test_interrupted_then_resumed_it_ends_where_an_uninterrupted_run_ends(tmp_path, text_file):
    """A real Ctrl-C to a real process."""
    command = [sys.executable, "-m", "llmkit", "train", "--text", str(text_file), "--steps", "20"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    out = tmp_path / "interrupted"
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.time() + 60
    while not (out / "checkpoint" / "config.json").exists():  # the first tenth is done
        assert time.time() < deadline, "no checkpoint appeared"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume goes on" in printed
    assert checkpoint.load_state(out / "checkpoint")["step"] < 20
    whole = tmp_path / "whole"
    for arguments in (["--out", str(out), "--resume"], ["--out", str(whole)]):
        subprocess.run(
            [*command, *arguments], env=environment, check=True, capture_output=True, timeout=120
        )
    resumed, expected = (json.loads((f / "report.json").read_text()) for f in (out, whole))
    assert resumed["val_loss"] == expected["val_loss"]
    assert resumed["steps"] == expected["steps"] == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus", "embeded"], "embedded"),
        (["--text", "no/such/file.txt"], "no/such/file.txt"),
        (["--steps", "0"], "steps must be at least 1"),
        (["--seed", "-1"], "seed"),
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
def test_every_recipe_can_be_trained(tokens, device, monkeypatch):
    """The GPU's recipes too: on the CPU here, with few steps, narrow, but otherwise as they are."""
    model_config, config = recipe(tokens, 65, device, steps=2, seed=5)
    assert (config.steps, config.seed) == (2, 5)
    assert model_config.block_size < tokens
    assert set(MODELS) == set(RUNS)
    narrow = replace(model_config, n_embd=model_config.n_head * 8, trigram_rows=64, bigram_rows=64)
    ids = torch.randint(65, (min(tokens, 2000),))
    config = replace(config, batch_size=2, dtype="float32")
    history = llmkit.train(llmkit.FastGPT(narrow), ids, ids[:600], config)
    assert len(history.loss) == 2
