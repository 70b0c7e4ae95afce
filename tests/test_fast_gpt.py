"""`speed.fast_gpt`: the raced model keeps the interface, and each part does what it says."""

import math

import pytest
import torch

from llmkit.attention import causal_attention, rotary, rotary_table, rotate
from llmkit.speed.cpu import byte_dropout
from llmkit.speed.fast_gpt import FastGPT, FastGPTConfig, bucket, norm

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
@pytest.mark.parametrize("tables", [{}, {"ngram_rows": ()}, {"ngram_rows": (0, 64)}])
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


@pytest.mark.parametrize("n", [2, 3, 4])
def test_each_table_sees_exactly_its_last_tokens(n):
    model = perturbed()
    for other in [model.wte, *(table for k, table in model.ngrams.items() if k != str(n))]:
        torch.nn.init.zeros_(other.weight)
    x = torch.tensor([[1, 5, 6, 7, 8, 2, 5, 6, 7, 8, 5, 6]])
    seen = model._embed(x, None)[0]  # (T, C)
    first, again = n - 1 + 1, n - 1 + 6  # where the n-gram that starts in 5 ends, twice
    assert torch.equal(x[0, first - n + 1 : first + 1], x[0, again - n + 1 : again + 1])
    assert torch.equal(seen[first], seen[again])
    assert not torch.allclose(seen[first - 1], seen[again - 1])  # 1 5 ... and 2 5 ...


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


def test_norm_against_its_formula_and_that_queries_and_keys_have_it(monkeypatch):
    x = torch.randn(2, 5, 16)
    by_hand = (x - x.mean(-1, keepdim=True)) / x.std(-1, correction=0, keepdim=True)
    assert torch.allclose(norm(x), by_hand, atol=1e-4)
    model = perturbed()
    layer = model.h[0].attn
    turns = rotary_table(0, 5, 8, x)
    seen = {}

    def spy(q, k, v):
        seen.update(q=q, k=k)
        return causal_attention(q, k, v)

    monkeypatch.setattr("llmkit.speed.fast_gpt.causal_attention", spy)
    layer(x, turns, None)
    for part in seen.values():  # normalised, and rotation keeps the length
        lengths = part.square().mean(dim=-1)
        assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-4)


def test_rotate_with_a_table_is_rotary():
    x = torch.randn(2, 3, 7, 8)
    assert torch.allclose(rotate(x, *rotary_table(4, 11, 8, x)), rotary(x, 4), atol=1e-6)


def test_gradient_checkpointing_gives_the_same_gradients_from_fewer_saved_numbers():
    def gradients(recompute: bool) -> tuple[list[torch.Tensor], int]:
        model = perturbed(dropout=0.2).train()
        model.gradient_checkpointing = recompute
        saved = 0

        def count(tensor):
            nonlocal saved
            saved += tensor.numel()
            return tensor

        x = torch.randint(11, (2, 12), generator=torch.Generator().manual_seed(0))
        torch.manual_seed(5)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model.loss(x, x)
        loss.backward()
        return [parameter.grad for parameter in model.parameters()], saved

    plain, all_saved = gradients(False)
    again, few_saved = gradients(True)
    assert few_saved < 0.6 * all_saved
    for a, b in zip(plain, again, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_under_autocast_the_stream_is_half_as_wide_and_the_loss_nearly_the_same():
    model = perturbed()
    x = torch.randint(11, (4, 12))
    seen = []
    model.h[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    exact = model.loss(x, x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.loss(x, x)
    assert seen == [torch.float32, torch.bfloat16]
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)


@pytest.mark.parametrize("p", [0.01, 0.25, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    x = torch.full((1001, 999), 3.0, requires_grad=True)
    y = byte_dropout(x, p)
    share = round(256 * p) / 256
    assert (y == 0).double().mean().item() == pytest.approx(share, abs=0.002)
    assert y[y != 0].unique().tolist() == pytest.approx([3 / (1 - share)])
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient != 0, y != 0)
    columns = (y == 0).flatten()[: 8 * 124_000].view(-1, 8).double().mean(dim=0)
    assert torch.allclose(columns, torch.full((8,), share).double(), atol=0.006)  # every byte alike
    assert not torch.equal(byte_dropout(x, p), y)
    assert torch.equal(byte_dropout(x, 0.0), x)


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
    tables = (8192 + 16384 + 32768) * C
    expected = V * C + tables + L * 12 * C * C + V * C
    assert FastGPT(FastGPTConfig(**SMALL)).num_parameters() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layer": 0}, "n_layer must be at least 1"),
        ({"n_embd": 18, "n_head": 2}, "n_embd 18 must be a multiple of 2 \\* n_head, 4"),
        ({"ngram_rows": (8, -1)}, "ngram_rows must be 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_an_impossible_shape_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        FastGPTConfig(**SMALL | change)


def test_a_window_too_long_is_refused():
    with pytest.raises(ValueError, match="13 tokens do not fit this model's block_size of 12"):
        FastGPT(FastGPTConfig(**SMALL))(torch.zeros(1, 13, dtype=torch.long))
