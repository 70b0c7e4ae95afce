"""`commands.recipe`: each recipe can be built and trained, and the sprint gets where it should."""

from dataclasses import replace

import pytest
import torch

import llmkit
from llmkit.commands.recipe import MODELS, RUNS, recipe
from llmkit.scale import cost
from llmkit.speed.cpu import best_dtype
from llmkit.speed.fast_gpt import FastGPT, sprint


@pytest.fixture(scope="module")
def ids():
    text = llmkit.load_text("embedded")
    return llmkit.split(llmkit.CharTokenizer.from_text(text).encode(text))


def test_a_sprint_passes_counting_of_triples_on_text_it_has_not_seen(ids):
    torch.manual_seed(0)
    shape, config = sprint(65)
    model = FastGPT(shape)
    llmkit.train(model, ids[0], config=config)
    assert llmkit.evaluate(model, ids[1]).loss < llmkit.NGram(ids[0], 3, 65).loss(ids[1])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("tokens", [150_000, 1_000_000])
def test_every_recipe_makes_a_model_that_trains(ids, device, tokens):
    shape, config = recipe(tokens, 65, device, steps=2)
    shape = replace(shape, n_layer=1, n_head=2, n_embd=16)
    config = replace(config, batch_size=2, dtype="float32")
    history = llmkit.train(llmkit.GPT(shape), ids[0], ids[1][:100], config)
    assert len(history.loss) == config.steps == 2
    assert MODELS.keys() == RUNS.keys()


def test_the_large_model_for_a_gpu_is_not_larger_than_nanogpts():
    shape, _ = recipe(1_000_000, 65, "cuda")
    assert sum(cost.parameters(shape).values()) <= 10_650_000


def test_a_recipe_stretches_and_a_short_text_gets_a_short_window():
    assert recipe(1_000_000, 65, steps=7)[1].warmup == 0
    assert recipe(1_000_000, 65, steps=1_000)[1].warmup == 20
    assert recipe(30, 65)[0].block_size == 15
    assert recipe(1_000, 65, seed=5)[1].seed == 5


def test_bfloat16_only_where_the_processor_has_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert best_dtype(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert best_dtype(torch.device("cpu")) == "bfloat16"
    assert best_dtype(torch.device("cuda")) is None
