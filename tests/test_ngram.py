"""llmkit.ngram against a slow dictionary implementation, one token at a time."""

import math
import os
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.evaluation import evaluate
from llmkit.generation import generate
from llmkit.ngram import NeuralBigram, NGram, estimate_discounts

quick = settings(deadline=None, max_examples=60)


class SlowNGram:
    """Interpolated absolute discounting from its formula, with dictionaries and recursion."""

    def __init__(self, tokens, order, V, discount):
        self.order, self.V = order, V
        self.count, self.discounts = {}, {}
        for n in range(1, order + 1):
            grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
            self.count[n] = Counter(grams)
            self.discounts[n] = (discount,) * 3 if discount else self.chen_goodman(self.count[n])

    @staticmethod
    def chen_goodman(count):
        n1, n2, n3, n4 = (sum(c == r for c in count.values()) for r in (1, 2, 3, 4))
        if 0 in (n1, n2, n3, n4):
            return 0.75, 0.75, 0.75
        Y = n1 / (n1 + 2 * n2)
        D = 1 - 2 * Y * n2 / n1, 2 - 3 * Y * n3 / n2, 3 - 4 * Y * n4 / n3
        return D if min(D) > 0 else (0.75, 0.75, 0.75)

    def p(self, token, context, n=None):
        n = self.order if n is None else n
        if n == 0:
            return 1 / self.V
        context = tuple(context)[max(0, len(context) - (n - 1)) :]
        shorter = self.p(token, context, n - 1)
        if len(context) < n - 1:
            return shorter
        followers = {g[-1]: c for g, c in self.count[n].items() if g[:-1] == context}
        total = sum(followers.values())
        if total == 0:
            return shorter
        cut = {w: self.discounts[n][min(c, 3) - 1] for w, c in followers.items()}
        kept = followers[token] - cut[token] if token in followers else 0.0
        return kept / total + sum(cut.values()) / total * shorter


def markov_text(V, n, seed=0):
    """Ids in which each token has a few favourite followers, so that counts of all sizes occur."""
    generator = torch.Generator().manual_seed(seed)
    favourites = torch.randint(V, (V, 6), generator=generator)
    ranks = (torch.rand(n, generator=generator) ** 2 * 6).long()
    ids = [0]
    for rank in ranks[1:].tolist():
        ids.append(int(favourites[ids[-1], rank]))
    return torch.tensor(ids)


@st.composite
def texts_and_contexts(draw):
    V = draw(st.integers(1, 6))
    tokens = st.integers(0, V - 1)
    order = draw(st.integers(1, 7))
    text = draw(st.lists(tokens, min_size=order, max_size=60))
    context = draw(st.lists(tokens, max_size=9))
    if draw(st.booleans()):  # a context that surely occurs
        start = draw(st.integers(0, len(text) - 1))
        context = text[start : start + draw(st.integers(0, 8))]
    discount = draw(st.sampled_from([0.75, 0.1, 1.0, None]))
    return V, order, text, context, discount


@quick
@given(texts_and_contexts())
def test_equals_the_dictionaries_and_sums_to_one(case):
    V, order, text, context, discount = case
    model = NGram(torch.tensor(text), order, V, discount)
    slow = SlowNGram(text, order, V, discount)
    p = model.probabilities(torch.tensor(context, dtype=torch.long))
    assert p.shape == (V,)
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    assert p.min() > 0
    assert p.tolist() == pytest.approx([slow.p(w, context) for w in range(V)], rel=1e-12)


@pytest.mark.parametrize("discount", [0.75, None])
@pytest.mark.parametrize("order", range(1, 8))
def test_loss_and_forward_equal_the_dictionaries(order, discount):
    ids = markov_text(V=12, n=900)
    train, val = ids[:800], ids[800:]
    model = NGram(train, order, 12, discount)
    slow = SlowNGram(train.tolist(), order, 12, discount)
    expected = [-math.log(slow.p(int(val[i]), val[:i].tolist())) for i in range(1, len(val))]
    assert model.loss(val) == pytest.approx(sum(expected) / len(expected), rel=1e-12)

    x = val[:36].view(3, 12)
    log_p = model(x)
    assert log_p.shape == (3, 12, 12)
    for row, t in [(0, 0), (1, 3), (2, 11)]:
        expected = [math.log(slow.p(w, x[row, : t + 1].tolist())) for w in range(12)]
        assert log_p[row, t].tolist() == pytest.approx(expected, rel=1e-12)


def test_the_last_position_alone():
    model = NGram(markov_text(6, 300, seed=1), 3, 6)
    x = markov_text(6, 20, seed=2).view(2, 10)
    assert torch.equal(model(x, last_only=True), model(x)[:, -1:])


def test_three_discounts_come_from_the_counts():
    """n1 = 4, n2 = 3, n3 = 2, n4 = 1: Y = 4/10, so D = 1 - .6, 2 - .8, 3 - .8."""
    counts = torch.tensor([1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 50])
    assert estimate_discounts(counts) == pytest.approx([0.4, 1.2, 2.2])
    assert estimate_discounts(torch.tensor([5, 7, 9])) == [0.75] * 3  # nothing is rare
    assert estimate_discounts(torch.tensor([1, 2, 3] + [4] * 9)) == [0.75] * 3  # D3 < 0
    model = NGram(markov_text(12, 2000), 3, 12, discount=None)
    p = model(markov_text(12, 50, seed=5)[None]).exp()
    assert torch.allclose(p.sum(-1), torch.ones_like(p[..., 0]), atol=1e-12)


def test_large_vocabulary_and_order_do_not_overflow():
    V, order = 1_000_003, 9  # V**order is far beyond 64 bits
    ids = markov_text(40, 600) * 25_000 + 1
    model = NGram(ids, order, V)
    slow = SlowNGram(ids.tolist(), order, V, 0.75)
    val = markov_text(40, 60, seed=1) * 25_000 + 1
    expected = [-math.log(slow.p(int(val[i]), val[:i].tolist())) for i in range(1, len(val))]
    assert model.loss(val) == pytest.approx(sum(expected) / len(expected), rel=1e-12)
    assert model.loss(ids) < 2  # it knows its own text by heart


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_evaluate_agrees_where_windows_overlap_enough(order):
    model, val = NGram(markov_text(9, 3000), order, 9), markov_text(9, 1000, seed=3)
    full_context = min(256, 256 - order + 2)
    assert evaluate(model, val, stride=full_context).loss == pytest.approx(
        model.loss(val), rel=1e-12
    )
    if order > 2:  # one token further, and the first new token of a window lacks one of context
        less = evaluate(model, val, stride=full_context + 1).loss
        assert less != pytest.approx(model.loss(val), rel=1e-9)
        assert evaluate(model, val).loss == pytest.approx(model.loss(val), rel=0.05)


def test_it_generates_with_its_whole_context_far_beyond_the_block():
    period = [0, 1, 2, 0, 1, 3, 0, 1, 4]  # what follows 0 1 is known from three tokens back
    model = NGram(torch.tensor(period * 30), 4, 5)
    text = generate(model, torch.tensor(period[:3]), 600, temperature=0)
    assert text.tolist() == (period * 70)[:603]
    assert model.config.block_size // 2 >= model.order - 1


def test_checks_its_input():
    ids = torch.tensor([0, 1, 2, 1])
    model = NGram(ids, 2, 3)
    for bad in (0, -1, 1.5, "2"):
        with pytest.raises(ValueError, match="order must be"):
            NGram(ids, bad, 3)
    for bad in (0, -0.5, 1.01, math.nan):
        with pytest.raises(ValueError, match="discount must be"):
            NGram(ids, 2, 3, bad)
    with pytest.raises(ValueError, match="5 or more"):
        NGram(ids, 5, 3)
    with pytest.raises(ValueError, match=r"id 2 in ids is outside the vocabulary \(size 2\)"):
        NGram(ids, 2, 2)
    with pytest.raises(ValueError, match="id 3 in context is outside"):
        model.probabilities(torch.tensor([3]))
    with pytest.raises(ValueError, match="id 3 in ids is outside"):
        model(torch.tensor([[0, 3]]))
    with pytest.raises(ValueError, match="2 or more"):
        model.loss(ids[:1])
    for kind in (torch.uint8, torch.uint16, torch.int32):  # token files are kept small
        assert NGram(ids.to(kind), 2, 3).loss(ids.to(kind)) == model.loss(ids)


def test_neural_bigram_learns_what_counting_finds():
    ids = markov_text(5, 300)
    x, y = ids[None, :-1], ids[None, 1:]
    pairs, firsts = Counter(zip(x[0].tolist(), y[0].tolist(), strict=True)), Counter(x[0].tolist())
    counted = -sum(c * math.log(c / firsts[i]) for (i, _), c in pairs.items()) / len(y[0])
    model = NeuralBigram(5)
    assert model.loss(x, y).item() == pytest.approx(math.log(5), rel=1e-6)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        model.loss(x, y).backward()
        optimizer.step()
    assert model.loss(x, y).item() == pytest.approx(counted, abs=1e-3)
    assert evaluate(model, ids).loss == pytest.approx(counted, abs=1e-3)
    learned = model(torch.arange(5)[None]).softmax(-1)[0]
    for (i, j), c in pairs.items():
        assert learned[i, j].item() == pytest.approx(c / firsts[i], abs=0.02)
    assert model(x).shape == (1, 299, 5)
    assert sum(p.numel() for p in model.parameters()) == 25


def test_neural_bigram_uses_no_context():
    model = NeuralBigram(4)
    torch.nn.init.normal_(model.table.weight)
    logits = model(torch.tensor([[0, 1, 2], [3, 3, 2]]))
    assert torch.equal(logits[0, 2], logits[1, 2])


def test_known_figures_on_tiny_shakespeare():
    path = Path(os.environ.get("LLMKIT_DATA", "")) / "tiny_shakespeare.txt"
    if not path.is_file():
        pytest.skip("needs tiny_shakespeare.txt in the folder that LLMKIT_DATA names")
    text = path.read_text(encoding="utf-8")
    place = {c: i for i, c in enumerate(sorted(set(text)))}
    ids = torch.tensor([place[c] for c in text])
    train, val = ids[:1_003_854], ids[1_003_854:]
    assert (len(val), len(place)) == (111_540, 65)
    figures = [3.3473, 2.4865, 2.0559, 1.7895, 1.6922, 1.7213, 1.7867]
    for order, figure in enumerate(figures, start=1):
        start = time.perf_counter()
        assert NGram(train, order, 65).loss(val) == pytest.approx(figure, abs=1e-4)
        assert time.perf_counter() - start < 15  # about 1 s at order 5
    assert NGram(train, 5, 65, discount=None).loss(val) == pytest.approx(1.6609, abs=1e-4)
