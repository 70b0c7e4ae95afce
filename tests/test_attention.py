import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.attention import (
    CausalSelfAttention,
    KVCache,
    attention,
    attention_weights,
    causal_mask,
    rotary,
)
from llmkit.model import GPT, GPTConfig


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def layer(position="learned", n_embd=24, n_head=3, block_size=16, dropout=0.0, seed=0):
    config = SimpleNamespace(
        n_embd=n_embd, n_head=n_head, dropout=dropout, bias=True, position=position
    )
    torch.manual_seed(seed)
    new = CausalSelfAttention(config).eval()
    cache = KVCache(2, n_head, block_size, n_embd // n_head)
    return new, cache


# --- causal_mask


def test_causal_mask_is_true_where_the_column_is_not_later_than_the_row():
    mask = causal_mask(3)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True, False, False], [True, True, False], [True, True, True]]


@given(T=st.integers(1, 40))
@settings(deadline=None, max_examples=20)
def test_causal_mask_by_its_definition(T):
    assert causal_mask(T).tolist() == [[s <= t for s in range(T)] for t in range(T)]


# --- attention


def test_attention_of_two_positions_by_hand():
    q = torch.tensor([[2.0, 0, 0, 0]])
    k = torch.tensor([[1.0, 0, 0, 0], [0, 5, 0, 0]])
    v = torch.tensor([[10.0], [20.0]])
    out, weights = attention(q, k, v)  # scores 2·1/√4 = 1 and 0
    first = math.e / (math.e + 1)
    torch.testing.assert_close(weights, torch.tensor([[first, 1 - first]]))
    torch.testing.assert_close(out, torch.tensor([[10 * first + 20 * (1 - first)]]))


@given(
    B=st.integers(1, 3),
    H=st.integers(1, 4),
    T=st.integers(1, 9),
    S=st.integers(1, 12),
    D=st.integers(1, 8),
    Dv=st.integers(1, 8),
    masked=st.booleans(),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=80)
def test_attention_equals_pytorchs(B, H, T, S, D, Dv, masked, seed):
    q, k = normal(B, H, T, D, seed=seed), normal(B, H, S, D, seed=seed + 1)
    v = normal(B, H, S, Dv, seed=seed + 2)
    mask = None
    if masked:
        mask = normal(T, S, seed=seed + 3) > 0
        mask[torch.arange(T), torch.arange(T) % S] = True  # nobody is left without anything to see
    out, weights = attention(q, k, v, mask)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, T))
    assert weights.shape == (B, H, T, S)
    if masked:
        assert (weights.masked_select(~mask) == 0).all()


@pytest.mark.parametrize("T", [1, 2, 17])
def test_attention_with_the_causal_mask_equals_pytorchs_causal_kernel(T):
    q, k, v = (normal(2, 4, T, 16, seed=seed) for seed in range(3))
    out, weights = attention(q, k, v, causal_mask(T))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)
    assert (weights.triu(1) == 0).all()


def test_a_mask_holds_however_low_the_scores_are():
    # Scores of -2e12 for what may be seen: with -1e9 or -1e10 for the rest, the rest would be seen.
    q, k = torch.full((2, 1), -1e6), torch.full((2, 1), 2e6)
    k[1] = -2e6
    _, weights = attention(q, k, torch.eye(2), causal_mask(2))
    assert weights[0].tolist() == [1.0, 0.0]


def test_a_mask_broadcasts_over_batch_and_heads():
    q, k, v = (normal(2, 3, 4, 5, seed=seed) for seed in range(3))
    mask = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    mask[1, :, :, 3] = False
    _, weights = attention(q, k, v, mask)
    assert (weights[1, ..., 3] == 0).all()
    assert (weights[0, ..., 3] > 0).all()


def test_a_row_that_sees_nothing_is_an_error_not_nan():
    x = normal(3, 4)
    mask = causal_mask(3)
    mask[1] = False
    with pytest.raises(ValueError, match="all False"):
        attention(x, x, x, mask)


def test_a_mask_of_numbers_is_refused():
    x = normal(3, 4)
    with pytest.raises(TypeError, match=r"bool.*float32"):
        attention(x, x, x, torch.ones(3, 3).tril())


# --- rotary


def test_rotary_turns_a_pair_by_the_position_in_radians():
    x = torch.tensor([1.0, 0.0]).repeat(1, 1, 4, 1)  # (B=1, H=1, T=4, D=2)
    expected = torch.tensor([[math.cos(t), math.sin(t)] for t in range(4)])
    torch.testing.assert_close(rotary(x)[0, 0], expected)


def test_rotary_pairs_features_half_a_head_apart_each_slower_than_the_last():
    D, t = 8, 5
    for i in range(D // 2):
        x = torch.zeros(1, 1, 1, D, dtype=torch.float64)
        x[..., i] = 1
        angle = t / 10000 ** (2 * i / D)
        expected = torch.zeros(D, dtype=torch.float64)
        expected[i], expected[i + D // 2] = math.cos(angle), math.sin(angle)
        torch.testing.assert_close(rotary(x, start=t)[0, 0, 0], expected)


@given(
    m=st.integers(0, 400),
    n=st.integers(0, 400),
    shift=st.integers(0, 400),
    half=st.integers(1, 16),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=60)
def test_rotary_products_depend_on_the_distance_only_and_lengths_are_kept(m, n, shift, half, seed):
    q = normal(1, 2, 1, 2 * half, seed=seed, dtype=torch.float64)
    k = normal(1, 2, 1, 2 * half, seed=seed + 1, dtype=torch.float64)
    near = (rotary(q, m) * rotary(k, n)).sum(-1)
    far = (rotary(q, m + shift) * rotary(k, n + shift)).sum(-1)
    torch.testing.assert_close(near, far, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(rotary(q, m).norm(dim=-1), q.norm(dim=-1))


def test_rotary_does_depend_on_the_distance():
    q, k = normal(1, 1, 1, 8), normal(1, 1, 1, 8, seed=1)
    products = [(rotary(q, 0) * rotary(k, n)).sum().item() for n in range(4)]
    assert len({round(product, 3) for product in products}) == 4


@given(T=st.integers(1, 20), start=st.integers(0, 20))
@settings(deadline=None, max_examples=30)
def test_rotary_continues_from_start(T, start):
    x = normal(2, 3, start + T, 6)
    torch.testing.assert_close(rotary(x)[:, :, start:], rotary(x[:, :, start:], start))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_rotary_keeps_the_dtype_and_turns_by_exact_angles(dtype):
    x = normal(1, 1, 1000, 4).to(dtype)
    turned = rotary(x)
    assert turned.dtype == dtype
    # In half precision itself, positions above 256 (bfloat16) would be rounded to their neighbours.
    assert (turned.double() - rotary(x.double())).abs().max() < 4 * torch.finfo(dtype).eps + 4e-4


def test_rotary_needs_pairs():
    with pytest.raises(ValueError, match=r"5.*even"):
        rotary(normal(1, 1, 2, 5))


# --- KVCache


def test_cache_returns_all_it_was_given_in_order():
    cache = KVCache(2, 3, block_size=5, head_size=4)
    k, v = normal(2, 3, 5, 4), normal(2, 3, 5, 4, seed=1)
    for start, stop in [(0, 2), (2, 3), (3, 5)]:
        keys, values = cache.append(k[:, :, start:stop], v[:, :, start:stop])
        assert cache.length == stop
        torch.testing.assert_close(keys, k[:, :, :stop], rtol=0, atol=0)
        torch.testing.assert_close(values, v[:, :, :stop], rtol=0, atol=0)


def test_cache_overflow_and_foreign_shapes_are_errors_and_change_nothing():
    cache = KVCache(2, 3, block_size=5, head_size=4)
    x = normal(2, 3, 4, 4)
    cache.append(x, x)
    with pytest.raises(ValueError, match="holds 4 of 5 positions"):
        cache.append(x, x)
    one = normal(1, 3, 1, 4)  # a batch of one would be repeated for all rows without a word
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*\(1, 3, 1, 4\)"):
        cache.append(one, one)
    assert cache.length == 4


# --- CausalSelfAttention


@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize(("n_embd", "n_head"), [(24, 3), (24, 12), (8, 1)])
def test_layer_equals_the_explicit_formula_head_by_head(position, n_embd, n_head):
    attn, _ = layer(position, n_embd, n_head)
    x, D = normal(2, 7, n_embd), n_embd // n_head
    weight, bias = attn.c_attn.weight, attn.c_attn.bias
    heads = []
    for h in range(n_head):  # the h-th slice of each of the three parts, one head at a time
        q, k, v = (
            x @ weight[rows].T + bias[rows]
            for part in range(3)
            for rows in [slice(part * n_embd + h * D, part * n_embd + (h + 1) * D)]
        )
        if position == "rotary":
            q, k = rotary(q[:, None])[:, 0], rotary(k[:, None])[:, 0]
        heads.append(attention(q, k, v, causal_mask(7))[0])
    expected = attn.c_proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attn(x), expected, atol=1e-6, rtol=1e-5)


@given(data=st.data(), position=st.sampled_from(["learned", "rotary"]))
@settings(deadline=None, max_examples=60)
def test_layer_with_a_cache_in_chunks_of_any_size_equals_the_layer_without(data, position):
    attn, cache = layer(position, seed=data.draw(st.integers(0, 10**6)))
    T = data.draw(st.integers(1, 16))
    x, parts, start = normal(2, T, 24), [], 0
    with torch.no_grad():
        while start < T:
            stop = start + data.draw(st.integers(1, T - start))
            parts.append(attn(x[:, start:stop], cache))
            start = stop
        torch.testing.assert_close(torch.cat(parts, dim=1), attn(x), atol=1e-5, rtol=1e-5)


def test_layer_with_a_full_cache_is_an_error():
    attn, cache = layer(block_size=4)
    attn(normal(2, 4, 24), cache)
    with pytest.raises(ValueError, match="4 of 4 positions"):
        attn(normal(2, 1, 24), cache)


def test_no_gradient_flows_through_the_cache():
    attn, cache = layer()
    first = normal(2, 2, 24).requires_grad_()
    attn(first, cache)
    later = normal(2, 1, 24).requires_grad_()
    attn(later, cache).sum().backward()
    assert first.grad is None
    assert later.grad is not None
    assert not cache.keys.requires_grad


def test_layer_has_gpt2s_parameters():
    attn, _ = layer()
    shapes = {name: tuple(p.shape) for name, p in attn.named_parameters()}
    assert shapes == {
        "c_attn.weight": (72, 24),
        "c_attn.bias": (72,),
        "c_proj.weight": (24, 24),
        "c_proj.bias": (24,),
    }


def test_dropout_acts_on_weights_and_output_and_only_in_training():
    attn, _ = layer(dropout=0.5)
    x = normal(2, 6, 24)
    assert torch.equal(attn(x), attn(x))
    attn.train()
    assert not torch.equal(attn(x), attn(x))
    attn.resid_dropout.p = 0.0  # what is left is dropout on the attention weights
    assert not torch.equal(attn(x), attn(x))
    attn.resid_dropout.p, attn.dropout = 0.5, 0.0  # what is left is dropout on the output
    zeros = (attn(x) == 0).float().mean().item()
    assert 0.35 < zeros < 0.65


def test_layer_under_autocast_with_a_cache():
    attn, cache = layer("rotary")
    x = normal(2, 5, 24)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        parts = [attn(x[:, :3], cache), attn(x[:, 3:], cache)]
    torch.testing.assert_close(torch.cat(parts, dim=1).float(), attn(x), atol=2e-2, rtol=2e-2)


# --- attention_weights


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_the_weights_of_a_model_are_those_it_attends_with(position, monkeypatch):
    used = []

    def attend(q, k, v, dropout=0.0):
        out, weights = attention(q, k, v, causal_mask(q.size(-2)))
        used.append(weights)
        return out

    monkeypatch.setattr(CausalSelfAttention, "attend", staticmethod(attend))
    config = GPTConfig(7, block_size=6, n_layer=3, n_head=2, n_embd=8, position=position)
    model = GPT(config).eval()
    ids = torch.randint(7, (2, 5))
    weights = attention_weights(model, ids)
    assert weights.shape == (3, 2, 2, 5, 5)
    assert torch.allclose(weights, torch.stack(used), atol=1e-6)
    open_weights = attention_weights(model, ids, masked=False)
    assert (open_weights > 0).all()
    assert not any(block.attn._forward_pre_hooks for block in model.h)


def test_a_model_without_attention_has_no_weights():
    with pytest.raises(ValueError, match="no CausalSelfAttention"):
        attention_weights(torch.nn.Linear(2, 2), torch.zeros(1, 2))
