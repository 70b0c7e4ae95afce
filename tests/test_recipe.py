"""`commands.recipe`: each recipe can be built and trained, and the sprint gets where it should."""

import itertools
from dataclasses import replace

import pytest
import torch

import llmkit
from llmkit.commands.recipe import (
    LADDER,
    MODELS,
    READINGS,
    RUNS,
    TOKENS_PER_PARAMETER,
    dropout,
    matrices,
    pace,
    recipe,
    weight_decay,
)
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


@pytest.fixture
def speed(monkeypatch):
    """A machine on which a step takes as long as the model has parameters."""
    asked = []

    def pace(shape, config, device):
        asked.append((shape.n_layer, shape.n_embd))
        return 1e-7 * matrices(shape)

    monkeypatch.setattr("llmkit.commands.recipe.pace", pace)
    return asked


@pytest.mark.parametrize("tokens", [150_000, 1_000_000])
def test_more_time_makes_models_larger_and_never_shorter_trained(speed, tokens):
    budgets = (1, 30, 60, 120, 300, 900, 9000)
    chosen = [recipe(tokens, 65, seconds=seconds) for seconds in budgets]
    for (shape, config), seconds in zip(chosen, budgets, strict=True):
        read = config.steps * config.batch_size * shape.block_size
        smallest = (shape.n_layer, shape.n_embd) == LADDER[0][::2]
        assert smallest or read >= min(TOKENS_PER_PARAMETER * matrices(shape), READINGS * tokens)
        spent = config.steps * 1e-7 * matrices(shape)
        assert abs(seconds - spent) < 1  # nearer than a step
    sizes = [matrices(shape) for shape, _ in chosen]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 3


def test_what_is_read_again_and_again_is_pulled_to_zero_and_dropped():
    readings = (0, 4, 6, 8, 20, 400)
    assert [weight_decay(times) for times in readings] == [0.1, 0.1, 0.15, 0.2, 0.5, 0.5]
    hearts = (0, 16, 32, 64, 16 * 2**6, 10**6)
    assert [dropout(heart) for heart in hearts] == [0, 0, 0.05, 0.1, 0.3, 0.3]
    minute, long = recipe(1_000_000, 65), recipe(1_000_000, 65, steps=6_000)
    assert (minute[0].dropout, minute[1].weight_decay) == (0, 0.1)
    assert (long[0].dropout, long[1].weight_decay) == (0, weight_decay(6_000 * 16 * 128 / 1e6))
    short = recipe(150_000, 65, steps=1_200)  # the same model, more room in it
    assert short[0].dropout == dropout(1_200 * 16 * 128 / 150_000 * matrices(short[0]) / 150_000)
    assert 0.05 < short[0].dropout < 0.15


def test_no_size_is_tried_beyond_the_first_that_is_too_large(speed):
    recipe(1_000_000, 65, seconds=1)
    assert speed == [size[::2] for size in LADDER[:2]]


def test_a_dial_and_a_number_of_steps_contradict():
    with pytest.raises(ValueError, match="give steps or seconds, not both"):
        recipe(1_000_000, 65, steps=3, seconds=3)
    for seconds in (0, -1, float("nan"), True, "1"):
        with pytest.raises(ValueError, match="seconds must be"):
            recipe(1_000_000, 65, seconds=seconds)


def test_the_pace_is_a_steps_time_and_leaves_no_trace(monkeypatch):
    shape, config = recipe(1_000, 65)
    shape = replace(shape, n_layer=1, n_head=2, n_embd=16)
    clock = itertools.count(step=0.25)  # read twice in a step
    monkeypatch.setattr("llmkit.training.time.perf_counter", lambda: next(clock))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert pace(shape, config, torch.device("cpu")) == 0.25
    assert torch.equal(torch.get_rng_state(), before)


def test_bfloat16_only_where_the_processor_has_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert best_dtype(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert best_dtype(torch.device("cpu")) == "bfloat16"
    assert best_dtype(torch.device("cuda")) is None
