"""What the notebooks' prose says that one may call works: the commands, and a folder for others."""

import re

import build
import nbformat
import pytest
import torch
from serving import gpt
from transformers import AutoModelForCausalLM, AutoTokenizer

import llmkit
from llmkit import checkpoint
from llmkit.__main__ import main
from llmkit.deploy import export, server

PROMISED = sorted(
    {
        command
        for path in build.NOTEBOOKS.glob("*.ipynb")
        for cell in nbformat.read(path, 4).cells
        if cell.cell_type == "markdown"
        for command in re.findall(r"`python -m llmkit ([^`]*FOLDER[^`]*)`", cell.source)
    }
)


def test_commands_are_found():
    assert {"serve FOLDER", "export FOLDER --onnx --int8"} <= set(PROMISED)


@pytest.mark.parametrize("command", PROMISED)
def test_each_command_that_names_a_folder_runs(command, tmp_path, monkeypatch, capsys):
    tokenizer = llmkit.CharTokenizer.from_text(llmkit.load_text("embedded"))
    checkpoint.save(tmp_path / "model", gpt(tokenizer.vocab_size), tokenizer)
    monkeypatch.setattr(server, "run", lambda app, host, port, announce: announce("http://here"))
    measure = export.measure
    monkeypatch.setattr(export, "measure", lambda *rest, **more: measure(*rest, seconds=0.01))
    words = [str(tmp_path / "model") if word == "FOLDER" else word for word in command.split()]
    assert main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert ("http://here" if words[0] == "serve" else "int8") in printed


def test_a_gpt2_with_its_tokenizer_is_all_that_another_engine_needs(tmp_path):
    """As notebook 14 ends: save_gpt2(gpt2, folder, bpe), which transformers then loads whole."""
    bpe = llmkit.BPETokenizer.train(
        "the river was wide and the river was cold", 270, ["<|endoftext|>"]
    )
    torch.manual_seed(0)
    model = llmkit.GPT(llmkit.GPTConfig(270, 16, n_layer=1, n_head=2, n_embd=16)).eval()
    folder = llmkit.pretrained.save_gpt2(model, tmp_path / "folder", bpe)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = AutoTokenizer.from_pretrained(folder)("the river", return_tensors="pt").input_ids
    assert torch.equal(ids[0], bpe.encode("the river"))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model(ids))


def test_a_model_with_other_choices_is_refused(tmp_path):
    rotary = llmkit.GPT(llmkit.GPTConfig(20, 16, n_layer=1, n_head=2, n_embd=16, position="rotary"))
    with pytest.raises(ValueError, match="is no GPT-2"):
        llmkit.pretrained.save_gpt2(rotary, tmp_path / "x")
