"""llmkit.generation against its rules written out slowly, with and without the cache."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmkit.generation import fitting, generate, next_token_probabilities, sample, stream
from llmkit.model import GPT, GPTConfig
from llmkit.ngram import NeuralBigram, NGram
from llmkit.speed.fast_gpt import FastGPT, FastGPTConfig

quick = settings(deadline=None, max_examples=40)


def lively_gpt(block_size, V=11, position="learned", norm_first=True, seed=0):
    """A GPT in float64 with large weights: its scores differ, and depend on all it sees."""
    config = GPTConfig(
        V, block_size, n_layer=2, n_head=2, n_embd=8, position=position, norm_first=norm_first
    )
    model, generator = GPT(config).double(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * (parameter.dim() > 1)
    if not norm_first:
        model.h[-1].ln_2.weight.data.fill_(1)
    return model


def lively_fast_gpt(block_size, V=11, seed=0):
    """A FastGPT likewise; none of its layers is still at zero."""
    torch.manual_seed(seed)
    model = FastGPT(FastGPTConfig(V, block_size, n_layer=2, n_head=2, n_embd=8)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)
    return model


def prompts(B, T, V=11):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(B + T))


class Recorder(nn.Module):
    """Passes everything on to a model, and notes what was asked and the last scores."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config
        self.lengths, self.logits = [], []

    def new_cache(self, batch_size=1):
        return self.model.new_cache(batch_size)

    def forward(self, ids, **cache):
        logits = self.model(ids, **cache)
        self.lengths.append(ids.size(1))
        self.logits.append(logits[:, -1])
        return logits


class Fixed(nn.Module):
    """Always the same scores; no cache."""

    def __init__(self, logits, block_size=4):
        super().__init__()
        self.logits = torch.as_tensor(logits)
        self.config = SimpleNamespace(vocab_size=len(self.logits), block_size=block_size)

    def forward(self, ids):
        return self.logits.expand(*ids.shape, -1)


def window_after(sequence, B):
    """The rule in slow motion: a full window keeps its last B // 2 tokens when one more comes."""
    window = []
    for token in sequence:
        if len(window) == B:
            window = [window[i] for i in range(B - B // 2, B)]
        window = [*window, token]
    return window


def greedy_reference(model, prompt, n):
    sequence = list(prompt)
    for _ in range(n):
        with torch.no_grad():
            logits = model(torch.tensor([window_after(sequence, model.config.block_size)]))[0, -1]
        sequence.append(logits.tolist().index(max(logits.tolist())))
    return sequence


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize(("block_size", "T", "n"), [(8, 3, 30), (7, 7, 20), (5, 12, 15), (1, 2, 5)])
def test_cached_and_uncached_are_the_same(position, norm_first, block_size, T, n):
    model = lively_gpt(block_size, position=position, norm_first=norm_first)
    prompt = torch.arange(T) % 11
    cached, plain = Recorder(model), Recorder(model)
    for settings_ in ({"temperature": 0}, {"temperature": 1.3, "seed": 4}):
        a = generate(cached, prompt, n, **settings_)
        b = generate(plain, prompt, n, **settings_, use_cache=False)
        assert torch.equal(a, b)
    assert len(cached.logits) == len(plain.logits) == 2 * n
    assert torch.allclose(torch.stack(cached.logits), torch.stack(plain.logits), atol=1e-9)
    assert torch.stack(plain.logits).std(0).mean() > 0.1  # or the comparison would mean little
    expected = greedy_reference(model, prompt.tolist(), n)
    assert generate(model, prompt, n, temperature=0).tolist() == expected


def gpt2_and_ours():
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"vocab_size": 97, "n_layer": 3, "n_head": 4, "n_embd": 64}
    torch.manual_seed(0)
    config = GPT2Config(n_positions=48, bos_token_id=0, eos_token_id=None, **shape)
    reference = GPT2LMHeadModel(config).eval()
    model, weights = GPT(GPTConfig(block_size=48, **shape)), {}
    with torch.no_grad():
        for parameter in reference.parameters():
            scale = 0.3 if parameter.dim() > 1 else 0.1  # each token depends on all before it
            parameter.add_(scale * torch.randn_like(parameter))
        reference.transformer.wpe.weight.normal_()  # and on where it stands
    for name, weight in reference.state_dict().items():
        linear = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        weights[name.removeprefix("transformer.")] = weight.T if linear else weight
    model.load_state_dict(weights)
    return reference, model


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_text_is_that_of_transformers_gpt2(use_cache):
    reference, model = gpt2_and_ours()
    ids = prompts(3, 5, V=97)
    expected = reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=43, do_sample=False, pad_token_id=0
    )
    assert expected.shape == (3, 48)  # up to the last position there is
    assert len(set(expected[:, 5:].flatten().tolist())) > 20  # no row goes round in a small circle
    assert torch.equal(generate(model, ids, 43, temperature=0, use_cache=use_cache), expected)
    for row, text in zip(ids, expected, strict=True):
        assert torch.equal(generate(model, row, 43, temperature=0, use_cache=use_cache), text)


# --- several rows at once


@pytest.mark.parametrize("choices", [{"temperature": 0}, {"top_k": 5}, {"top_p": 0.8}, {}])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    ("block_size", "B", "T", "n"), [(8, 3, 3, 25), (5, 4, 12, 9), (1, 2, 2, 4)]
)
@pytest.mark.parametrize("make", [lively_gpt, lively_fast_gpt])
def test_a_row_of_a_batch_is_the_text_it_would_be_alone(
    make, block_size, B, T, n, use_cache, choices
):
    model, ids = make(block_size), prompts(B, T)
    texts = generate(model, ids, n, seed=40, use_cache=use_cache, **choices)
    assert texts.shape == (B, T + n)
    assert texts.dtype == torch.int64
    for b in range(B):
        alone = generate(model, ids[b], n, seed=40 + b, **choices)
        assert torch.equal(texts[b], alone)
    if not choices:
        same = generate(model, ids[:1].expand(B, -1), 12, seed=40, **choices)
        assert len({tuple(row.tolist()) for row in same}) == B  # each has a dart of its own


@pytest.mark.parametrize("make", [lively_gpt, lively_fast_gpt])
def test_in_float32_too_cached_and_uncached_are_the_same_for_a_batch(make):
    model, ids = make(12).float(), prompts(4, 7)
    cached, plain = Recorder(model), Recorder(model)
    a = generate(cached, ids, 60, seed=1)
    b = generate(plain, ids, 60, seed=1, use_cache=False)
    assert torch.equal(a, b)
    logits = torch.stack(plain.logits)  # (n, B, V)
    tolerance = 1e-5 * logits.abs().max().item()
    torch.testing.assert_close(torch.stack(cached.logits), logits, atol=tolerance, rtol=0)


def test_a_batch_of_a_model_without_a_cache():
    period = torch.tensor([0, 1, 2, 3] * 10)
    texts = generate(NGram(period, 2, 4), period.view(-1, 4)[:2, :2], 4, temperature=0)
    assert texts.tolist() == [[0, 1, 2, 3, 0, 1]] * 2
    assert generate(NeuralBigram(4), prompts(3, 2, V=4), 5, seed=0).shape == (3, 7)


def test_a_batch_streams_one_tensor_a_step():
    model, ids = lively_gpt(8), prompts(3, 4)
    steps = []
    for tokens in stream(model, ids, 20, seed=2):
        assert tokens.shape == (3,)
        assert tokens.dtype == torch.int64
        steps.append(tokens.clone())
        tokens.zero_()  # what the consumer does with it is no matter
    assert torch.equal(torch.stack(steps, dim=1), generate(model, ids, 20, seed=2)[:, 4:])
    one = list(stream(model, ids[:1], 5, seed=2))
    assert [tuple(tokens.shape) for tokens in one] == [(1,)] * 5


def test_a_row_that_has_stopped_repeats_its_stop_token_until_all_have():
    model = NGram(torch.tensor([0, 1, 2, 3, 4] * 10), 2, 6)
    ids = torch.tensor([[0, 1], [2, 3], [4, 3]])
    texts = generate(model, ids, 30, temperature=0, stop=[4, 0])
    assert texts.tolist() == [[0, 1, 2, 3, 4], [2, 3, 4, 4, 4], [4, 3, 4, 4, 4]]
    assert generate(model, ids, 1, temperature=0, stop=4).tolist() == [
        [0, 1, 2],
        [2, 3, 4],
        [4, 3, 4],
    ]
    assert generate(model, ids, 30, temperature=0, stop=5).shape == (3, 32)  # it never comes
    lively, ids = lively_gpt(8), prompts(6, 3)
    texts, ends = generate(lively, ids, 200, seed=9, stop={1, 2}), []
    for b in range(6):
        alone = generate(lively, ids[b], 200, seed=9 + b, stop={1, 2})
        ends.append(len(alone))
        assert torch.equal(texts[b, : len(alone)], alone)
        assert (texts[b, len(alone) :] == alone[-1]).all()
    assert texts.size(1) == max(ends) > min(ends)


def test_without_a_seed_a_batch_draws_from_the_global_state():
    model, ids = lively_gpt(8), prompts(2, 3)
    texts = []
    for _ in range(2):
        torch.manual_seed(3)
        texts += [generate(model, ids, 30), generate(model, ids, 30)]
    assert torch.equal(texts[0], texts[2])
    assert not torch.equal(texts[0], texts[1])
    torch.manual_seed(3)
    alone = generate(model, ids[0], 30)
    torch.manual_seed(3)
    assert torch.equal(alone, generate(model, ids[:1], 30)[0])


@given(T=st.integers(1, 60), block_size=st.integers(1, 20))
@quick
def test_what_the_window_holds_of_a_long_prompt(T, block_size):
    assert fitting(T, block_size) == len(window_after(range(T), block_size))


@pytest.mark.parametrize("make", [lively_gpt, lively_fast_gpt])
def test_only_the_last_position_is_scored(make):
    model, scored = make(8), []
    model.lm_head.register_forward_hook(lambda layer, args, output: scored.append(output.shape))
    for use_cache in (True, False):
        generate(model, prompts(2, 5), 12, temperature=0, use_cache=use_cache)
    assert set(scored) == {(2, 1, 11)}


def test_a_counter_scores_only_the_last_position_too():
    scored = []
    counter = NGram(torch.arange(40) % 11, 3, 11)
    counter.register_forward_hook(lambda layer, args, output: scored.append(output.shape))
    generate(counter, prompts(2, 5), 6, temperature=0)
    assert set(scored) == {(2, 1, 11)}


@quick
@given(st.integers(1, 9), st.integers(1, 25), st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_in_one_go_or_in_several(block_size, T, n, m, use_cache):
    model = lively_gpt(block_size, seed=T)
    prompt = torch.randint(11, (T,), generator=torch.Generator().manual_seed(n))
    once = generate(model, prompt, n + m, temperature=0, use_cache=use_cache)
    first = generate(model, prompt, n, temperature=0, use_cache=use_cache)
    assert torch.equal(once, generate(model, first, m, temperature=0, use_cache=use_cache))
    assert torch.equal(once[:T], prompt)  # all of it, however long
    assert once.shape == (T + n + m,)


def test_a_cached_step_reads_one_token():
    model = Recorder(lively_gpt(8))
    generate(model, torch.arange(6), 12, temperature=0)
    #          prompt, then 7 and 8 held, then 4 kept + 1, and again one by one up to 8
    assert model.lengths == [6, 1, 1, 5, 1, 1, 1, 5, 1, 1, 1, 5]
    model = Recorder(lively_gpt(8))
    generate(model, torch.arange(6), 12, temperature=0, use_cache=False)
    assert model.lengths == [6, 7, 8, 5, 6, 7, 8, 5, 6, 7, 8, 5]
    model = Recorder(lively_gpt(8))
    generate(model, torch.arange(11), 1, temperature=0)  # 9 tokens leave 5, 11 leave 7
    assert model.lengths == [7]


@pytest.mark.parametrize("use_cache", [True, False])
def test_models_without_a_cache(use_cache):
    ids = torch.tensor([0, 1, 2, 3] * 10)
    for model in (NGram(ids, 3, 5), NeuralBigram(5), Fixed(torch.zeros(5))):
        text = generate(model, ids[:3], 50, seed=1, use_cache=use_cache)
        assert text.shape == (53,)
        assert text.min() >= 0
        assert text.max() < 5
    assert generate(NGram(ids, 3, 5), ids[:3], 5, temperature=0).tolist() == [
        0,
        1,
        2,
        3,
        0,
        1,
        2,
        3,
    ]


def test_seeds():
    model, prompt = lively_gpt(16), torch.tensor([1, 2])
    state = torch.get_rng_state()
    texts = [tuple(generate(model, prompt, 40, seed=seed).tolist()) for seed in (0, 0, 1, 2)]
    generate(model, prompt, 5, temperature=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3
    torch.manual_seed(5)
    first, second = generate(model, prompt, 40), generate(model, prompt, 40)
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(first, generate(model, prompt, 40))


def test_stream_hands_out_what_generate_collects():
    model, prompt = lively_gpt(8), torch.tensor([3, 4])
    tokens = list(stream(model, prompt, 20, seed=3))
    assert all(type(token) is int for token in tokens)
    assert tokens == generate(model, prompt, 20, seed=3)[2:].tolist()


@pytest.mark.parametrize("kind", [set, list, tuple, torch.tensor])
def test_stop(kind):
    ids = torch.tensor([0, 1, 2, 3, 4] * 10)
    model = NGram(ids, 3, 6)
    assert generate(model, ids[:2], 30, temperature=0, stop=4).tolist() == [0, 1, 2, 3, 4]
    assert generate(model, ids[:4], 30, temperature=0, stop=kind([3, 0])).tolist() == [
        0,
        1,
        2,
        3,
        4,
        0,
    ]
    assert len(generate(model, ids[:2], 30, temperature=0, stop=kind([5]))) == 32  # never comes
    # A stop token in the prompt, the newest included, stops nothing.
    assert generate(model, ids[:5], 3, temperature=0, stop=4).tolist() == [0, 1, 2, 3, 4, 0, 1, 2]


def test_the_result():
    prompt = torch.tensor([1, 0], dtype=torch.int32)
    result = generate(Fixed([0.0, 1.0]), prompt, 0)
    assert result.tolist() == [1, 0]
    assert result.dtype == torch.int64
    assert generate(Fixed([0.0, 1.0]), [1, 0], 2, temperature=0).tolist() == [1, 0, 1, 1]


class Modes(Fixed):
    """Notes its parts' modes and whether gradients are on; fails at the call asked for."""

    def __init__(self, fails_at=None):
        super().__init__([0.0, 1.0, 2.0])
        self.drop, self.frozen = nn.Dropout(), nn.Dropout()
        self.frozen.eval()
        self.fails_at, self.seen = fails_at, []

    def forward(self, ids):
        self.seen.append((self.training, self.drop.training, torch.is_grad_enabled()))
        if len(self.seen) == self.fails_at:
            raise RuntimeError("planted")
        return super().forward(ids)

    def as_made(self):
        return self.training and self.drop.training and not self.frozen.training


def test_modes_and_gradients():
    prompt = torch.tensor([0])
    model = Modes()
    generate(model, prompt, 9)
    assert set(model.seen) == {(False, False, False)}
    assert model.as_made()

    model = Modes(fails_at=3)
    with pytest.raises(RuntimeError, match="planted"):
        generate(model, prompt, 9)
    assert model.as_made()

    model = Modes()
    for _ in stream(model, prompt, 9):
        assert torch.is_grad_enabled()  # the consumer's own work is not affected
        break
    assert model.as_made()
    tokens = stream(model, prompt, 9)
    assert model.as_made()  # nothing happens before the first token is asked for
    next(tokens)
    assert torch.is_grad_enabled()
    tokens.close()
    assert model.as_made()

    model.eval()
    generate(model, prompt, 2)
    assert not model.training


def slow_probabilities(logits, temperature, top_k, top_p):
    V = len(logits)
    if temperature == 0:
        best = logits.index(max(logits))
        return [float(i == best) for i in range(V)]
    exps = [math.exp((x - max(logits)) / temperature) for x in logits]
    p = {i: e / sum(exps) for i, e in enumerate(exps)}
    ranked = sorted(p, key=lambda i: (-p[i], i))
    if top_k is not None:
        ranked = ranked[:top_k]
    if top_p is not None:
        mass, kept = sum(p[i] for i in ranked), []
        for i in ranked:
            kept.append(i)
            if sum(p[j] for j in kept) / mass >= top_p - 1e-9:
                break
        ranked = kept
    mass = sum(p[i] for i in ranked)
    return [p[i] / mass if i in ranked else 0.0 for i in range(V)]


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_probabilities_equal_the_slow_ones(data):
    # Logarithms of whole numbers, few of them: ties, and shares that are plain fractions.
    weights = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 8]), min_size=1, max_size=12))
    logits = [math.log(w) + 5 for w in weights]
    temperature = data.draw(st.sampled_from([0, 0.5, 1.0, 2.0]))
    top_k = data.draw(st.none() | st.integers(1, len(logits)))
    top_p = data.draw(st.none() | st.sampled_from([1e-9, 0.11, 0.307, 0.513, 0.777, 0.951, 1.0]))
    p = next_token_probabilities(torch.tensor(logits), temperature, top_k, top_p)
    expected = slow_probabilities(logits, temperature, top_k, top_p)
    assert p.tolist() == pytest.approx(expected, abs=1e-5)
    assert p.sum().item() == pytest.approx(1, abs=1e-6)
    assert [x > 0 for x in p.tolist()] == [x > 0 for x in expected]


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_probabilities_of_a_batch_are_those_of_its_rows(data):
    V, B = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    logits = torch.randn(B, V, generator=generator) * data.draw(st.sampled_from([0.1, 1.0, 5.0]))
    if data.draw(st.booleans()):
        logits = logits.round()  # ties
    choices = (
        data.draw(st.sampled_from([0, 0.5, 1.0])),
        data.draw(st.none() | st.integers(1, V)),
        data.draw(st.none() | st.sampled_from([0.1, 0.5, 0.9, 1.0])),
    )
    together = next_token_probabilities(logits, *choices)
    alone = torch.stack([next_token_probabilities(row, *choices) for row in logits])
    assert together.dtype == torch.float32
    assert torch.equal(together > 0, alone > 0)
    assert torch.allclose(together, alone, atol=1e-7)


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    for top_p, kept in [(0.01, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.76, 3), (0.9, 4), (1.0, 4)]:
        assert (next_token_probabilities(logits, top_p=top_p) > 0).sum() == kept
    least = next_token_probabilities(logits, top_k=3, top_p=5e-324)  # the least float above 0
    assert (least > 0).sum() == 1
    tied = next_token_probabilities(torch.zeros(4), top_p=0.5)
    assert tied.tolist() == [0.5, 0.5, 0, 0]  # exactly enough, the lower ids
    both = next_token_probabilities(
        logits, top_k=2, top_p=0.6
    )  # of 2/3 and 1/3, the first is enough
    assert both.tolist() == [1, 0, 0, 0]
    many = next_token_probabilities(torch.zeros(1000), top_p=0.5)
    assert (many > 0).nonzero()[:, 0].tolist() == list(range(500))
    assert (next_token_probabilities(torch.tensor([0.0, -40.0]), top_p=1.0) > 0).all()
    large = torch.randn(50_257, generator=torch.Generator().manual_seed(0))
    p, q = large.softmax(0), next_token_probabilities(large, top_p=0.9)
    assert p[q > 0].sum() >= 0.9
    assert p[q > 0].sum() - p[q > 0].min() < 0.9
    assert p[q > 0].min() >= p[q == 0].max()


def test_temperatures():
    logits = torch.tensor([1.0, 3.0, 3.0, -math.inf])
    assert next_token_probabilities(logits, 0).tolist() == [0, 1, 0, 0]
    assert next_token_probabilities(logits, 1e-50).tolist() == [0, 0.5, 0.5, 0]
    plain = next_token_probabilities(logits)
    assert plain.dtype == torch.float32
    assert torch.allclose(plain, logits.softmax(0))
    hot = next_token_probabilities(logits, 1e6)
    assert hot.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0], abs=1e-5)
    huge = next_token_probabilities(torch.tensor([1e38, -1e38], dtype=torch.bfloat16), 0.1)
    assert huge.tolist() == [1, 0]


def test_sampling_draws_by_probability():
    p = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    generator = torch.Generator().manual_seed(0)
    other = p.roll(2)
    drawn = sample(torch.stack([p, other]).repeat(20_000, 1), [generator] * 40_000)
    for q, ids in ((p, drawn[::2]), (other, drawn[1::2])):
        counts = ids.bincount(minlength=6)
        assert counts[q == 0].sum() == 0
        assert torch.allclose(counts / 20_000, q, atol=0.012)  # 3.4 standard deviations


def test_the_edges_of_the_dart(monkeypatch):
    p = torch.tensor([0.0, 0.25, 0.0, 0.75, 0.0])
    for throw, token in [(0.0, 1), (0.2499, 1), (0.25, 3), (1 - 2**-53, 3)]:
        dart = torch.tensor(throw, dtype=torch.float64)
        monkeypatch.setattr(torch, "rand", lambda *_, dart=dart, **__: dart)
        assert sample(p[None], [None]).tolist() == [token]


def test_top_k_reaches_the_text():
    model = Fixed(torch.arange(10.0) / 10)
    assert set(generate(model, torch.tensor([0]), 60, top_k=2, seed=0)[1:].tolist()) == {8, 9}
    assert set(generate(model, torch.tensor([0]), 60, top_p=0.01, seed=0)[1:].tolist()) == {9}
    assert set(generate(model, torch.tensor([0]), 60, temperature=1e-3, seed=0)[1:].tolist()) == {9}
    assert len(set(generate(model, torch.tensor([0]), 200, seed=0)[1:].tolist())) == 10


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_scores_that_are_no_numbers(bad, temperature):
    model = Fixed([0.0, bad, 1.0])
    with pytest.raises(ValueError, match="the model's numbers have run away"):
        generate(model, torch.tensor([0]), 3, temperature=temperature)
    with pytest.raises(ValueError, match="highest score is -inf"):
        next_token_probabilities(torch.full((3,), -math.inf))
    with pytest.raises(ValueError, match=f"highest score is {bad}"):
        next_token_probabilities(torch.tensor([[0.0, 1.0], [bad, 0.0]]), temperature)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.1}, "temperature must be at least 0"),
        ({"temperature": math.nan}, "temperature must be at least 0"),
        ({"temperature": math.inf}, "temperature must be at least 0"),
        ({"top_k": 0}, "top_k must be from 1 to 3, not 0"),
        ({"top_k": 4}, "top_k must be from 1 to 3, not 4"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.1}, "top_p must be above 0"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0"),
        (
            {"prompt_ids": torch.tensor([], dtype=torch.long)},
            "prompt_ids must be one sequence of 1",
        ),
        ({"prompt_ids": torch.tensor([])}, "prompt_ids must be one sequence of 1"),
        ({"prompt_ids": torch.zeros(2, 0)}, "prompt_ids must be one sequence of 1"),
        ({"prompt_ids": torch.zeros(0, 2).long()}, "prompt_ids must be one sequence of 1"),
        ({"prompt_ids": torch.zeros(1, 2, 3).long()}, "prompt_ids must be one sequence of 1"),
        ({"prompt_ids": torch.tensor([[0, 1], [3, 0]])}, "id 3 in prompt_ids is outside"),
        ({"prompt_ids": torch.tensor(1)}, "prompt_ids must be one sequence of 1"),
        ({"prompt_ids": torch.tensor([0.5])}, "whole numbers"),
        ({"prompt_ids": torch.tensor([0, 3])}, "id 3 in prompt_ids is outside"),
        ({"prompt_ids": torch.tensor([-1])}, "id -1 in prompt_ids is outside"),
        ({"stop": 3}, "id 3 in stop is outside"),
        ({"stop": {0, -2}}, "id -2 in stop is outside"),
    ],
)
def test_checks_its_input(arguments, message):
    arguments = {"prompt_ids": torch.tensor([0]), "max_new_tokens": 3} | arguments
    with pytest.raises(ValueError, match=message):
        generate(Fixed([0.0, 1.0, 2.0]), **arguments)


def test_top_k_is_checked_without_a_vocab_size():
    model = Fixed([0.0, 1.0, 2.0])
    model.config = SimpleNamespace(block_size=4)
    assert generate(model, torch.tensor([0]), 3, temperature=0).tolist() == [0, 2, 2, 2]
    with pytest.raises(ValueError, match="top_k must be from 1 to 3"):
        generate(model, torch.tensor([0]), 3, top_k=4)


def test_the_lowest_temperature_there_is_takes_the_likeliest():
    """5e-324 is the smallest float above 0: scores divided by it are infinite."""
    p = next_token_probabilities(torch.tensor([2.0, 5.0, -1.0]), temperature=5e-324)
    assert p.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "stop", [np.int64(3), torch.tensor(3), {3}, np.array([3]), (i for i in [3])]
)
def test_a_stop_comes_as_any_kind_of_number_or_numbers(stop):
    model = GPT(GPTConfig(vocab_size=5, block_size=8, n_layer=1, n_head=1, n_embd=4))
    expected = generate(model, torch.tensor([0]), 30, stop=3, seed=1)
    assert expected[-1] == 3
    assert torch.equal(generate(model, [0], 30, stop=stop, seed=1), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(stop="\n"), r"stop must be token ids.* not '\\n': .*tokenizer\.encode"),
        (dict(stop=2.5), "stop must be token ids"),
        (dict(prompt_ids=[[1, 2], [3]]), "prompt_ids must be token ids.* each row as long as the"),
        (
            dict(prompt_ids="abc"),
            r"prompt_ids must be token ids.*: .*tokenizer\.encode",
        ),
        (dict(prompt_ids=None), "prompt_ids must be token ids.* not None"),
        (dict(top_k=1.5), "top_k must be a whole number, not 1.5"),
        (dict(max_new_tokens=2.5), "max_new_tokens must be a whole number, not 2.5"),
    ],
)
def test_what_cannot_be_ids_or_counts_is_told(changes, message):
    model = GPT(GPTConfig(vocab_size=5, block_size=8, n_layer=1, n_head=1, n_embd=4))
    given = dict(prompt_ids=[0], max_new_tokens=3) | changes
    with pytest.raises(ValueError, match=message):
        generate(model, **given)
