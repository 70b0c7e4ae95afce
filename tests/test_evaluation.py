"""llmkit.evaluation against one token at a time, with models whose answers are known."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmkit.evaluation import (
    IGNORE_INDEX,
    SCORES,
    Report,
    device_of,
    evaluate,
    fitting_batch,
    perplexity,
    token_losses,
)
from llmkit.model import GPT, GPTConfig

quick = settings(deadline=None, max_examples=100)


class Recorder(nn.Module):
    """A causal model in float64 whose scores depend on all it sees, in order; notes its inputs."""

    def __init__(self, V, block_size):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=V, block_size=block_size)
        generator = torch.Generator().manual_seed(V)
        self.table = torch.randn(V, V, generator=generator, dtype=torch.float64)
        self.inputs = []

    def forward(self, ids):
        self.inputs.append(ids)
        positions = torch.arange(1, ids.size(1) + 1).sqrt()[:, None]
        return (self.table[ids] * positions).cumsum(1).sin() * 3


class Uniform(nn.Module):
    def __init__(self, V, block_size=8, score=0.0):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=V, block_size=block_size)
        self.score = score

    def forward(self, ids):
        return torch.full((*ids.shape, self.config.vocab_size), self.score)


def one_token_at_a_time(model, ids, stride):
    """The same mean from its definition: for each token, the first window that reaches it."""
    B, total = model.config.block_size, 0.0
    for i in range(1, len(ids)):
        window = max(0, math.ceil((i - B) / stride))
        context = ids[window * stride : i]
        assert 1 <= len(context) <= B
        scores = model(context[None])[0, -1].tolist()
        total += math.log(sum(map(math.exp, scores))) - scores[ids[i]]
    return total / (len(ids) - 1)


@quick
@given(st.data())
def test_every_token_once_at_any_batch_size(data):
    N, B = data.draw(st.integers(2, 70)), data.draw(st.integers(1, 24))
    stride = data.draw(st.none() | st.integers(1, B))
    batch_size = data.draw(st.integers(1, 12))
    ids = torch.randint(7, (N,), generator=torch.Generator().manual_seed(N))
    model = Recorder(7, B)
    report = evaluate(model, ids, stride=stride, batch_size=batch_size)
    assert max(x.size(0) for x in model.inputs) <= batch_size
    assert report.tokens == N - 1
    expected = one_token_at_a_time(model, ids, stride or B)
    assert report.loss == pytest.approx(expected, rel=1e-12)
    assert report.perplexity == pytest.approx(math.exp(expected), rel=1e-12)


@pytest.mark.parametrize(("N", "B", "stride"), [(50, 8, 8), (50, 8, 3), (49, 8, 8), (5, 8, 2)])
def test_a_recording_model_is_shown_each_token_and_charged_for_each_target(N, B, stride):
    """Token i costs 2^-i nats, so the binary digits of the total say which targets were counted."""

    class Charges(Recorder):
        def forward(self, ids):
            self.inputs.append(ids)
            cost = 0.5 ** (ids + 1.0).double()  # of the token after each
            p = torch.exp(-cost)
            wrong = torch.log((1 - p) / (self.config.vocab_size - 1))[..., None]
            logits = wrong.expand(*ids.shape, self.config.vocab_size).clone()
            return logits.scatter_(-1, (ids + 1)[..., None], -cost[..., None])

    model = Charges(N + 1, B)
    report = evaluate(model, torch.arange(N), stride=stride, batch_size=3)
    charged = report.loss * (N - 1)
    assert charged == pytest.approx(1 - 0.5 ** (N - 1), abs=0.5**40)
    shown = torch.cat([x.flatten() for x in model.inputs])
    assert set(shown.tolist()) == set(range(N - 1))  # the last token is an answer, never a question
    if stride == B:
        assert len(shown) == N - 1


def test_no_token_is_padding():
    model = Recorder(7, 8)
    evaluate(model, torch.zeros(20, dtype=torch.long))
    assert [tuple(x.shape) for x in model.inputs] == [(2, 8), (1, 3)]
    model = Recorder(7, 8)
    evaluate(model, torch.zeros(4, dtype=torch.long))
    assert [tuple(x.shape) for x in model.inputs] == [(1, 3)]


@pytest.mark.parametrize("score", [0.0, 3.7])
def test_a_uniform_model_is_as_unsure_as_its_vocabulary_is_large(score):
    report = evaluate(Uniform(65, score=score), torch.randint(65, (100_003,)))
    assert report.perplexity == pytest.approx(65, rel=1e-9)  # float32 sums would not hold this
    assert report.loss == pytest.approx(math.log(65), rel=1e-12)


def test_bits_per_character():
    ids = torch.randint(4, (101,))  # 100 tokens of 2 bits
    assert evaluate(Uniform(4), ids).bits_per_char is None
    assert evaluate(Uniform(4), ids, characters=100).bits_per_char == pytest.approx(2)
    assert evaluate(Uniform(4), ids, characters=400).bits_per_char == pytest.approx(0.5)


class Modes(nn.Module):
    """Notes, at each call, its parts' modes and whether gradients are on; may fail."""

    def __init__(self, fails=False):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=5, block_size=4)
        self.table = nn.Embedding(5, 5)
        self.frozen, self.drop, self.fails, self.seen = nn.Dropout(0.5), nn.Dropout(0.5), fails, []

    def forward(self, ids):
        self.seen.append((self.training, self.drop.training, torch.is_grad_enabled()))
        if self.fails:
            raise RuntimeError("planted")
        return self.drop(self.table(ids))


@pytest.mark.parametrize("fails", [False, True])
def test_each_part_keeps_its_mode_and_no_gradient_is_left(fails):
    model = Modes(fails)
    model.train()
    model.frozen.eval()
    if fails:
        with pytest.raises(RuntimeError, match="planted"):
            evaluate(model, torch.arange(5))
    else:
        first, second = (evaluate(model, torch.arange(5)).loss for _ in range(2))
        assert first == second  # no dropout
    assert set(model.seen) == {(False, False, False)}
    assert (model.training, model.drop.training, model.frozen.training) == (True, True, False)
    assert torch.is_grad_enabled()
    assert model.table.weight.grad is None
    model.eval()
    model.fails = False
    evaluate(model, torch.arange(5))
    assert not model.training


def test_batches_are_moved_to_the_model():
    class Elsewhere(Uniform):
        def forward(self, ids):
            raise RuntimeError(f"called on {ids.device} with {tuple(ids.shape)}")

    model = Elsewhere(5)
    assert device_of(model) == torch.device("cpu")
    model.register_buffer("table", torch.zeros(1, device="meta"))
    with pytest.raises(RuntimeError, match=r"called on meta with \(2, 8\)"):
        evaluate(model, torch.zeros(100, dtype=torch.long), batch_size=2)
    model.weight = nn.Parameter(torch.zeros(1))
    assert device_of(model) == torch.device("cpu")


def test_a_config_without_vocab_size_will_do():
    model = Uniform(5)
    evaluated = evaluate(model, torch.tensor([4, 3, 2]))
    model.forward = lambda ids: torch.zeros(*ids.shape, 5)
    model.config = SimpleNamespace(block_size=8)
    assert evaluate(model, torch.tensor([4, 3, 2])) == evaluated


def test_checks_its_input():
    model, ids = Uniform(5), torch.tensor([0, 1, 2, 3, 4])
    for stride in (0, -1, 9):
        with pytest.raises(ValueError, match="stride must be from 1 to 8"):
            evaluate(model, ids, stride=stride)
    with pytest.raises(ValueError, match="characters must be at least 1"):
        evaluate(model, ids, characters=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        evaluate(model, ids, batch_size=0)
    for few in (ids[:1], ids[:0], torch.tensor(3), ids[None]):
        with pytest.raises(ValueError, match="one sequence of 2 or more ids"):
            evaluate(model, few)
    for outside in (torch.tensor([0, 5]), torch.tensor([-1, 0])):
        with pytest.raises(ValueError, match=r"outside the vocabulary \(size 5\)"):
            evaluate(model, outside)
    with pytest.raises(ValueError, match="whole numbers"):
        evaluate(model, ids.float())
    assert evaluate(model, ids.int()).tokens == 4


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint16, torch.uint32])
def test_ids_of_any_width_are_made_int64_a_window_at_a_time(dtype):
    model, ids = Recorder(7, 8), torch.randint(7, (100,))
    expected = evaluate(model, ids, stride=3)
    model.inputs.clear()
    report = evaluate(model, ids.to(dtype), stride=3, batch_size=4)
    assert report.loss == pytest.approx(expected.loss, rel=1e-6)  # batches are rounded otherwise
    assert {(x.dtype, len(x) <= 4) for x in model.inputs} == {(torch.int64, True)}


def test_the_report_is_frozen_and_reads_in_one_line():
    report = Report(loss=math.log(5), tokens=111_539)
    assert repr(report) == "loss ≈ 1.6094 nats · perplexity ≈ 5.000 · 111,539 tokens"
    report = dataclasses.replace(report, bits_per_char=2.3219)
    assert repr(report) == (
        "loss ≈ 1.6094 nats · perplexity ≈ 5.000 · bits/character ≈ 2.322 · 111,539 tokens"
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.loss = 0.0


def test_perplexity():
    assert perplexity(0.0) == 1
    assert perplexity(math.log(65)) == pytest.approx(65)
    assert perplexity(1000.0) == math.inf
    assert math.isnan(perplexity(math.nan))


def test_a_measurement_holds_few_scores_whatever_the_vocabulary():
    """A GPT-2's window has 51 million: one at a time; a small model's come 32 at a time."""
    seen = []

    class Wide(nn.Module):
        def __init__(self, V, T):
            super().__init__()
            self.config = SimpleNamespace(vocab_size=V, block_size=T)

        def forward(self, ids):
            seen.append(len(ids))
            return torch.zeros(1).expand(*ids.shape, self.config.vocab_size)

    text = torch.zeros(64 * 40 + 1, dtype=torch.int64)
    assert evaluate(Wide(65, 64), text).loss == pytest.approx(math.log(65))
    assert seen == [32, 8]
    seen.clear()
    assert evaluate(Wide(50_000, 64), text[: 64 * 12 + 1]).loss == pytest.approx(math.log(50_000))
    assert seen == [5, 5, 2]
    assert all(rows * 64 * 50_000 <= SCORES for rows in seen)
    assert fitting_batch(SimpleNamespace(vocab_size=50_257, block_size=1024)) == 1


def test_losses_in_pieces_are_those_of_pytorch(monkeypatch):
    monkeypatch.setattr("llmkit.evaluation.PIECE", 30)  # four positions of a vocabulary of seven
    logits, y = torch.randn(3, 5, 7), torch.randint(7, (3, 5))
    y[1, 2] = IGNORE_INDEX
    model = SimpleNamespace(parameters=lambda: iter([logits]), buffers=lambda: iter([]))
    losses = token_losses(Scores(logits, model), torch.zeros_like(y), y)
    wanted = F.cross_entropy(logits.double().mT, y, reduction="none")
    torch.testing.assert_close(losses, wanted)
    assert losses[1, 2] == 0


class Scores:
    """A model that gives the same scores whatever it reads."""

    def __init__(self, logits, weights):
        self.logits, self.parameters, self.buffers = logits, weights.parameters, weights.buffers

    def __call__(self, ids):
        return self.logits


def test_a_loss_that_is_no_number_is_told():
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4))
    with torch.no_grad():
        model.wte.weight[0, 0] = math.nan
    with pytest.raises(
        FloatingPointError, match=r"loss over the text is nan: .*earlier checkpoint"
    ):
        evaluate(model, torch.arange(5))
