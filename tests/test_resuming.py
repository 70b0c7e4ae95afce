"""A run goes on only where it stood: with its own model, weights, data; and a state is a copy."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from llmkit import checkpoint
from llmkit.callbacks import Checkpointer
from llmkit.finetune import lora
from llmkit.model import GPT, GPTConfig
from llmkit.ngram import NeuralBigram
from llmkit.speed.fast_gpt import FastGPT, FastGPTConfig
from llmkit.train_config import TrainConfig
from llmkit.training import train

SHAPE = dict(vocab_size=13, block_size=8, n_layer=1, n_head=2, n_embd=16)
CONFIG = TrainConfig(steps=10, batch_size=4, eval_every=5, learning_rate=0.01)
IDS = torch.randint(13, (600,), generator=torch.Generator().manual_seed(0))
TRAIN, VAL = IDS[:500], IDS[500:]


def make(seed=0, **changes):
    torch.manual_seed(seed)
    return GPT(GPTConfig(**SHAPE | changes))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def stopped_at(step, model, config=CONFIG):
    """The state of a run that was stopped there, taken by a callback."""
    states = []

    def stop(run):
        if run.step == step:
            run.stop = "test"
            states.append(run.state_dict())

    train(model, TRAIN, VAL, config, callbacks=[stop])
    return states[0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(n_embd=32), r"n_embd was 16, now 32"),
        (dict(n_embd=8), r"n_embd was 16, now 8"),
        (dict(vocab_size=80), r"vocab_size was 13, now 80"),
        (dict(block_size=7), r"block_size was 8, now 7"),
        (dict(n_head=4), r"n_head was 2, now 4"),
        (dict(n_layer=2), r"n_layer was 1, now 2"),
        (dict(position="rotary"), r"position was 'learned', now 'rotary'"),
        (dict(), "checksum of the weights was"),  # the right shape, but nothing was loaded
    ],
)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_another_model_is_refused_before_anything_is_done(changes, told, optimizer):
    config = replace(CONFIG, optimizer=optimizer)
    state = stopped_at(5, make(), config)
    other = make(seed=1, **changes)
    before = weights(other)
    with pytest.raises(ValueError, match=f"the same model from the weights of .*: the.* {told}"):
        train(other, TRAIN, VAL, config, resume=state)
    assert torch.equal(weights(other), before)


def test_another_class_is_refused():
    state = stopped_at(5, make())
    fast = FastGPT(FastGPTConfig(**SHAPE))
    with pytest.raises(ValueError, match="the model's class was GPT, now FastGPT"):
        train(fast, TRAIN, VAL, CONFIG, resume=state)


def test_so_it_is_with_lora():
    model = lora.apply(make(), rank=2)
    state = stopped_at(5, model)
    for rank in (3, 2):  # another rank; another adapter of the same rank
        with pytest.raises(ValueError, match=r"the same model .* was"):
            train(lora.apply(make(), rank=rank), TRAIN, VAL, CONFIG, resume=state)
    whole = lora.apply(make(), rank=2)
    whole.load_state_dict(lora.apply(make(), rank=2).state_dict())
    assert len(train(model, TRAIN, VAL, CONFIG, resume=state).loss) == 10


def test_so_it_is_with_a_module_of_the_readers():
    state = stopped_at(5, model := NeuralBigram(13))
    with pytest.raises(ValueError, match="the same model"):
        train(NeuralBigram(14), TRAIN, VAL, CONFIG, resume=state)
    train(model, TRAIN, VAL, CONFIG, resume=state)


@pytest.mark.parametrize("state", [{}, {"step": 3}, {"config": {}, "rows": 4}])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ValueError, match=r"resume takes what checkpoint\.load_state gives"):
        train(make(), TRAIN, VAL, CONFIG, resume=state)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_state_resumed_twice_gives_the_same_twice(optimizer):
    config = replace(CONFIG, optimizer=optimizer, keep_best=True)
    model = make()
    state = stopped_at(5, model, config)
    kept, as_it_was = copy.deepcopy(state), copy.deepcopy(model.state_dict())
    ends = []
    for _ in range(2):
        model.load_state_dict(as_it_was)
        history = train(model, TRAIN, VAL, config, resume=state)
        assert history.step == list(range(1, 11))
        ends.append(weights(model))
    assert torch.equal(*ends)
    torch.testing.assert_close(state["optimizers"], kept["optimizers"], rtol=0, atol=0)
    assert state["history"] == kept["history"]


def test_a_state_does_not_move_with_the_run():
    states = []
    train(make(), TRAIN, VAL, CONFIG, callbacks=[lambda run: states.append(run.state_dict())])
    moments = [s["optimizers"][0]["state"][0]["exp_avg"] for s in states]
    assert not torch.equal(moments[0], moments[1])
    assert [len(s["history"]["loss"]) for s in states] == list(range(1, 11))


class Losses:
    """A validation loss that goes as planted, in the place of `evaluate`."""

    def __init__(self, *losses):
        self.losses = iter(losses)

    def __call__(self, *_, **__):
        from llmkit.evaluation import Report

        return Report(next(self.losses), 1)


def kept(run_folder):
    return weights(checkpoint.load(run_folder)[0])


@pytest.mark.parametrize(
    ("losses", "patience", "best"), [((2, 1, 3, 4, 5), None, 4), ((2, 1, 3, 3, 3), 2, 4)]
)
def test_a_run_at_its_own_end_leaves_the_best_in_model_and_folder(
    tmp_path, monkeypatch, losses, patience, best
):
    monkeypatch.setattr("llmkit.training.evaluate", Losses(*losses))
    at = {}
    config = replace(CONFIG, eval_every=2, keep_best=True, patience=patience)
    model = make()

    def look(run):
        at[run.step] = weights(run.model)

    keep = Checkpointer(tmp_path / "run")
    history = train(model, TRAIN, VAL, config, callbacks=[look, keep])
    assert history.best_step == best
    assert torch.equal(weights(model), at[best])
    assert torch.equal(kept(tmp_path / "run"), at[best])
    again, _ = checkpoint.load(tmp_path / "run")
    state = checkpoint.load_state(tmp_path / "run")
    if patience is None:  # it is over: nothing more to do
        assert train(again, TRAIN, VAL, config, resume=state).step == history.step
        assert torch.equal(weights(again), at[best])


def test_a_stopped_run_leaves_the_last_in_model_and_folder(tmp_path, monkeypatch):
    """By whatever it was stopped; only from them can it go on."""
    config = replace(CONFIG, eval_every=2, keep_best=True)

    def fail(run):
        run.model.loss = lambda x, y: (run.model(x) * math.nan).mean()

    for stop in (lambda run: setattr(run, "stop", "enough"), fail):
        monkeypatch.setattr("llmkit.training.evaluate", Losses(1, 2, 3, 4, 5))
        at, model = {}, make()

        def look(run, at=at, stop=stop):
            at[run.step] = weights(run.model)
            if run.step == 5:
                stop(run)

        keep = Checkpointer(tmp_path / "run", every=1)
        try:
            train(model, TRAIN, VAL, config, callbacks=[look, keep])
        except FloatingPointError:
            assert stop is fail
        assert list(at) == [1, 2, 3, 4, 5]
        assert torch.equal(weights(model), at[5])
        assert torch.equal(kept(tmp_path / "run"), at[5])
        assert checkpoint.load_state(tmp_path / "run")["step"] == 5
