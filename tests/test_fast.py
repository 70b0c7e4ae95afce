"""`llmkit.fast`: the raced model keeps the interface, and each of its parts does what it says."""

import math

import pytest
import torch
import torch.nn.functional as F

from llmkit.fast import FastGPT, FastGPTConfig, bucket, norm

SMALL = dict(vocab_size=11, block_size=12, n_layer=2, n_head=2, n_embd=16)


def perturbed(seed=0, **changes) -> FastGPT:
    """A model none of whose weights are zero: zeros would hide what the parts do."""
    torch.manual_seed(seed)
    model = FastGPT(FastGPTConfig(**SMALL | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def test_the_first_loss_is_ln_v():
    model = FastGPT(FastGPTConfig(**SMALL))
    x = torch.randint(11, (4, 12))
    assert model.loss(x, x).item() == pytest.approx(math.log(11), abs=1e-6)
    assert model(x).shape == (4, 12, 11)


def test_it_does_not_look_ahead_and_does_not_mix_rows():
    model = perturbed()
    x = torch.randint(11, (3, 12))
    for t in range(1, 12):
        changed = x.clone()
        changed[:, t:] = (changed[:, t:] + 1) % 11
        assert torch.allclose(model(x)[:, :t], model(changed)[:, :t], atol=1e-6)
        assert not torch.allclose(model(x)[:, t:], model(changed)[:, t:], atol=1e-3)
    assert torch.allclose(model(x)[1:2], model(x[1:2]), atol=1e-5)


@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 4, 3], [1, 6, 1, 4]])
@pytest.mark.parametrize("tables", [{}, {"bigram_rows": 0, "trigram_rows": 0}])
def test_with_the_cache_chunk_by_chunk_it_gives_the_same_logits(chunks, tables):
    model = perturbed(**tables)
    x = torch.randint(11, (2, 12))
    cache = model.new_cache(batch_size=2)
    with torch.no_grad():
        parts = [model(chunk, cache) for chunk in x.split(chunks, dim=1)]
        assert torch.allclose(torch.cat(parts, dim=1), model(x), atol=1e-5)
    assert cache.length == 12
    with pytest.raises(ValueError, match="block_size of 12"):
        model(x[:, :1], cache)


def test_the_tables_see_exactly_the_last_two_and_three_tokens():
    model = perturbed()
    for other in (model.wte, model.ngrams["3"]):
        torch.nn.init.zeros_(other.weight)
    x = torch.tensor([[1, 2, 3, 9, 2, 3]])
    pairs = model._embed(x, None)[0]  # (T, C)
    assert torch.equal(pairs[2], pairs[5])  # both end in 2 3
    assert not torch.allclose(pairs[1], pairs[4])  # 1 2 and 9 2
    model = perturbed()
    for other in (model.wte, model.ngrams["2"]):
        torch.nn.init.zeros_(other.weight)
    x = torch.tensor([[1, 2, 3, 4, 2, 3, 9, 4, 2, 3]])
    triples = model._embed(x, None)[0]
    assert torch.equal(triples[5], triples[9])  # 4 2 3, twice
    assert not torch.allclose(triples[2], triples[5])  # 1 2 3 and 4 2 3


def test_every_pair_has_a_row_of_its_own_where_they_fit():
    V = 11
    keys = torch.arange(V * (V + 1))
    assert torch.equal(bucket(keys, (V + 1) ** 2, 8192), keys)
    shared = bucket(torch.arange(10**6), 10**6, 4096)
    assert shared.min() >= 0
    assert shared.max() < 4096
    counts = torch.bincount(shared, minlength=4096)
    assert counts.max() < 3 * counts.float().mean()  # spread evenly
    huge = bucket(torch.tensor([50257**3 - 1, 50257**3 - 2]), 50258**3, 4096)  # wraps around
    assert ((huge >= 0) & (huge < 4096)).all()


def test_norm_and_attention_against_pytorch():
    x = torch.randn(2, 5, 16)
    by_hand = x / (x.square().mean(dim=-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()
    assert torch.allclose(norm(x), by_hand, atol=1e-6)
    model = perturbed()
    layer = model.h[0].attn
    seen = {}
    real = F.scaled_dot_product_attention

    def spy(q, k, v, *args, **kwargs):
        seen.update(q=q, k=k)
        return real(q, k, v, *args, **kwargs)

    F.scaled_dot_product_attention = spy
    try:
        layer(x, None)
    finally:
        F.scaled_dot_product_attention = real
    lengths = seen["q"].square().mean(dim=-1)  # normalised, and rotation keeps the length
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-4)


def test_dropout_acts_in_training_only():
    model = perturbed(dropout=0.5)
    x = torch.randint(11, (2, 12))
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.allclose(model(x), model(x))


def test_it_learns(monkeypatch):
    torch.manual_seed(0)
    model = FastGPT(FastGPTConfig(**SMALL))
    x = torch.randint(11, (4, 13))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(x[:, :-1], x[:, 1:])
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_num_parameters_by_hand():
    V, C, L = 11, 16, 2
    tables = (8192 + 16384) * C
    expected = V * C + tables + L * 12 * C * C + V * C
    assert FastGPT(FastGPTConfig(**SMALL)).num_parameters() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layer": 0}, "n_layer must be at least 1"),
        ({"n_embd": 18, "n_head": 2}, "n_embd 18 must be a multiple of 2 \\* n_head, 4"),
        ({"bigram_rows": -1}, "bigram_rows must be 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_an_impossible_shape_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        FastGPTConfig(**SMALL | change)


def test_a_window_too_long_is_refused():
    with pytest.raises(ValueError, match="13 tokens do not fit this model's block_size of 12"):
        FastGPT(FastGPTConfig(**SMALL))(torch.zeros(1, 13, dtype=torch.long))
