"""The commands that use a trained model, `evaluate` and `generate`: what they print is what the
functions behind them give. `train`, `export` and `serve` have tests of their own."""

import json

import pytest
import torch

import llmkit
from llmkit import checkpoint
from llmkit.__main__ import main
from llmkit.deploy import export

TEXT = "MARA:\nThe river keeps no ledger of the rain.\n\nTOM:\nThen who pays?\n\n" * 60


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder: a model, the text it had, the report that names the text."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "poem.txt").write_text(TEXT, encoding="utf-8")
    torch.manual_seed(0)
    tokenizer = llmkit.CharTokenizer.from_text(TEXT)
    config = llmkit.GPTConfig(tokenizer.vocab_size, block_size=16, n_layer=2, n_head=2, n_embd=16)
    checkpoint.save(folder / "checkpoint", llmkit.GPT(config), tokenizer)
    (folder / "report.json").write_text(json.dumps({"corpus": str(folder / "poem.txt")}))
    return folder


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    """A checkpoint whose tokens are bytes, most of its characters being several."""
    torch.manual_seed(0)
    tokenizer = llmkit.BPETokenizer.train("žluťoučký kůň", 257, ["<|endoftext|>"])
    folder = tmp_path_factory.mktemp("bpe")
    config = llmkit.GPTConfig(tokenizer.vocab_size, block_size=8, n_layer=1, n_head=1, n_embd=8)
    return checkpoint.save(folder, llmkit.GPT(config), tokenizer)


def held_out(folder):
    model, tokenizer = export.load(folder)
    return model, tokenizer, llmkit.split(tokenizer.encode(TEXT))[1]


def figures(printed):
    return {line[:17].strip(): line[17:].split()[0] for line in printed.splitlines()}


@pytest.mark.parametrize("stride", [None, 3])
def test_evaluate_measures_the_held_out_part_of_the_runs_own_text(run, stride, capsys):
    assert main(["evaluate", str(run), *(["--stride", str(stride)] if stride else [])]) == 0
    found = figures(capsys.readouterr().out)
    model, _, ids = held_out(run)
    report = llmkit.evaluate(model, ids, stride=stride, characters=len(ids) - 1)
    assert found["validation loss"] == f"{report.loss:.4f}"
    assert found["perplexity"] == f"{report.perplexity:.3f}"
    assert found["bits per char"] == f"{report.bits_per_char:.4f}"


def test_evaluate_counts_characters_not_tokens(bpe, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("kůň a žába. " * 40, encoding="utf-8")
    assert main(["evaluate", str(bpe), "--text", str(text)]) == 0
    found = figures(capsys.readouterr().out)
    model, tokenizer = checkpoint.load(bpe)
    ids = llmkit.split(tokenizer.encode(text.read_text(encoding="utf-8")))[1]
    characters = len(tokenizer.decode(ids[1:]))
    assert characters < len(ids) - 1
    report = llmkit.evaluate(model, ids, characters=characters)
    assert found["bits per char"] == f"{report.bits_per_char:.4f}"


def test_generate_prints_what_generate_gives(run, capsys):
    sampling = ["--tokens", "30", "--temperature", "0.7", "--top-k", "5", "--top-p", "0.9"]
    assert main(["generate", str(run), "--prompt", "TOM:\n", "--seed", "4", *sampling]) == 0
    model, tokenizer, _ = held_out(run)
    prompt = tokenizer.encode("TOM:\n")
    ids = llmkit.generate(model, prompt, 30, temperature=0.7, top_k=5, top_p=0.9, seed=4)
    assert capsys.readouterr().out == tokenizer.decode(ids) + "\n"


def test_generate_ends_before_a_stop_text(run, capsys):
    printed = []
    for stop in ([], ["--stop", "e"]):
        assert main(["generate", str(run), "--seed", "1", "--tokens", "80", *stop]) == 0
        printed.append(capsys.readouterr().out)
    whole, stopped = printed
    assert "e" in whole
    assert stopped == whole[: whole.index("e")] + "\n"


def test_generate_shows_no_half_characters(bpe, capsys):
    """An untrained model over bytes draws many that are no UTF-8 where they stand; what is whole,
    must come out whole, and as decoding all at once gives it."""
    model, tokenizer = checkpoint.load(bpe)
    end = tokenizer.special_tokens["<|endoftext|>"]
    assert main(["generate", str(bpe), "--seed", "3", "--tokens", "200"]) == 0
    choices = {"temperature": 0.8, "stop": end, "seed": 3}
    ids = llmkit.generate(model, torch.tensor([end]), 200, **choices)[1:]
    assert capsys.readouterr().out == tokenizer.decode(ids[ids != end]) + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "RUN", "--prompt", "é"], "é"),
        (["generate", "RUN", "--stop", ""], "stop"),
        (["generate", "RUN", "--temperature", "-1"], "temperature"),
        (["generate", "RUN", "--tokens", "-1"], "max_new_tokens"),
        (["generate", "no/such"], "no/such"),
        (["evaluate", "RUN", "--stride", "0"], "stride"),
        (["evaluate", "RUN", "--corpus", "embeded"], "embedded"),
        (["evaluate", "no/such"], "no/such"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(run, arguments, message, capsys):
    assert main([str(run) if each == "RUN" else each for each in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_a_model_without_a_tokenizer_is_refused(tmp_path, command, capsys):
    config = llmkit.GPTConfig(5, block_size=4, n_layer=1, n_head=1, n_embd=4)
    checkpoint.save(tmp_path / "model", llmkit.GPT(config))
    assert main([command, str(tmp_path / "model")]) == 2
    assert "tokenizer" in capsys.readouterr().err
