"""bias: log-probabilities against a loop, differences against known odds, the bootstrap against
all its resamples."""

import math
from itertools import product

import pytest
import torch
from torch import nn

from llmkit import GPT, BPETokenizer, CharTokenizer, GPTConfig
from llmkit.responsible.bias import Interval, bootstrap_interval, log_odds, log_probabilities

TOKENIZER = CharTokenizer.from_text("The nurse smith said that she he was late. ")


def small(position="learned"):
    torch.manual_seed(3)
    model = GPT(GPTConfig(TOKENIZER.vocab_size, 48, 2, 2, 32, position=position))
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    return model


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_log_probabilities_are_the_sum_a_loop_finds(position):
    model = small(position)
    pairs = [("The nurse", " said"), ("The smith said that", " she was late."), ("s", "h")]
    expected = []
    for prefix, continuation in pairs:
        total, text = 0.0, prefix
        for letter in continuation:
            with torch.no_grad():
                p = model(TOKENIZER.encode(text)[None])[0, -1].double().softmax(-1)
            total += math.log(p[TOKENIZER.encode(letter)])
            text += letter
        expected.append(total)
    for batch_size in (1, 2, 64):  # whatever stands beside a pair
        got = log_probabilities(model, TOKENIZER, pairs, batch_size)
        assert got.tolist() == pytest.approx(expected, abs=1e-4)
    assert model.training


class Odds(nn.Module):
    """After "that " it says s with probability p, else h; everything else is certain."""

    def __init__(self, p):
        super().__init__()
        self.config, self.p = GPTConfig(TOKENIZER.vocab_size, 48), p

    def forward(self, ids):
        logits = torch.full((*ids.shape, TOKENIZER.vocab_size), 0.0)
        s, h = TOKENIZER.encode("sh").tolist()
        for row, text in enumerate(ids):
            for t in range(len(text)):
                if TOKENIZER.decode(text[: t + 1]).endswith("that "):
                    logits[row, t] = -math.inf
                    logits[row, t, s] = math.log(self.p)
                    logits[row, t, h] = math.log(1 - self.p)
        return logits


def test_a_pair_finds_the_odds_the_model_has():
    templates = ["The nurse said that {}", "that {}"]
    # " she" and " he" differ by one letter, which is even here: log V nats.
    V = TOKENIZER.vocab_size
    for p in (0.9, 0.5, 0.2):
        found = log_odds(Odds(p), TOKENIZER, templates, "she", "he")
        wanted = math.log(p / (1 - p)) - math.log(V)
        assert found.tolist() == pytest.approx([wanted] * 2, abs=1e-5)
    same_length = log_odds(Odds(0.8), TOKENIZER, templates, "see", "hee")
    assert same_length.tolist() == pytest.approx([math.log(4)] * 2, abs=1e-5)
    unbiased = log_odds(Odds(0.5), TOKENIZER, templates, "see", "hee")
    assert unbiased.abs().max() < 1e-6


def test_swapping_the_words_turns_the_sign():
    templates = ["The nurse said that {} was late.", "{} smith".join(["he ", ""])]
    model = small()
    one, other = (log_odds(model, TOKENIZER, templates, *w) for w in (("she", "he"), ("he", "she")))
    assert torch.equal(one, -other)
    assert log_odds(model, TOKENIZER, templates, "he", "he").abs().max() == 0


def test_pairs_that_cannot_be_asked():
    model = small()
    with pytest.raises(ValueError, match=r"pair 1: prefix and continuation"):
        log_probabilities(model, TOKENIZER, [("a", "s"), ("", "she")])
    with pytest.raises(ValueError, match=r"prefix and continuation"):
        log_probabilities(model, TOKENIZER, [("a", "")])
    with pytest.raises(ValueError, match=r"pair 0: 50 tokens; this model reads 48"):
        log_probabilities(model, TOKENIZER, [("a" * 45, " said")])
    assert len(log_probabilities(model, TOKENIZER, [("a" * 44, " said")])) == 1
    assert log_probabilities(model, TOKENIZER, []).shape == (0,)
    for template in ("The nurse said", "{} and {}"):
        with pytest.raises(ValueError, match="one gap"):
            log_odds(model, TOKENIZER, [template], "she", "he")
    with pytest.raises(ValueError, match="prefix and continuation"):
        log_odds(model, TOKENIZER, ["{} said"], "she", "he")


def test_a_token_over_the_seam_is_refused():
    tokenizer = BPETokenizer.train("said that she said that she " * 9, 270)
    model = GPT(GPTConfig(270, 16, n_layer=1, n_head=1, n_embd=8))
    with pytest.raises(ValueError, match="move the space to the continuation"):
        log_probabilities(model, tokenizer, [("said ", "that")])
    assert log_probabilities(model, tokenizer, [("said", " that")]).isfinite().all()


def test_the_bootstrap_is_the_enumeration_of_all_resamples():
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    means = torch.tensor([sum(draw) / 5 for draw in product(values, repeat=5)]).double()
    for level in (0.5, 0.8, 0.9):
        low, high = means.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2]).double())
        found = bootstrap_interval(values, level, resamples=40_000)
        assert found.mean == pytest.approx(6.2)
        assert found.low == pytest.approx(low.item(), abs=0.25)
        assert found.high == pytest.approx(high.item(), abs=0.25)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(5)
    worlds = 3 + 2 * torch.randn(400, 30, generator=generator)
    covered = sum(3 in bootstrap_interval(world, 0.95, resamples=500) for world in worlds)
    assert 0.89 < covered / 400 < 0.98  # somewhat too narrow, as the docstring says


def test_intervals():
    interval = bootstrap_interval([0.0, 1.0], seed=1)
    assert interval == bootstrap_interval([0.0, 1.0], seed=1)
    assert 0.5 in interval
    assert 1.5 not in interval
    negated = bootstrap_interval([-3.0, -1.0, -2.0]), bootstrap_interval([3.0, 1.0, 2.0])
    assert negated[0].low == pytest.approx(-negated[1].high)
    assert f"{Interval(1, 0.25, 2):.1f}" == "≈ 1.0 [≈ 0.2, ≈ 2.0]"
    with pytest.raises(ValueError, match="1 values have no spread"):
        bootstrap_interval([1.0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_interval([1.0, 2.0], level=95)
