import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit import checks
from llmkit.attention import sinusoids
from llmkit.model import GPT, GPTConfig

COMBINATIONS = [
    {"position": p, "norm_first": n, "activation": a, "tie_weights": t}
    for p, n, a, t in itertools.product(
        ("learned", "sinusoidal", "rotary"), (True, False), ("gelu", "relu"), (True, False)
    )
]


def name(changes):
    norm, tied = changes["norm_first"], changes["tie_weights"]
    words = changes["position"], "pre" if norm else "post", changes["activation"]
    return "-".join((*words, "tied" if tied else "untied"))


every_combination = pytest.mark.parametrize("changes", COMBINATIONS, ids=name)
every_position = pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])


def small(seed=0, perturb=0.0, **changes):
    """A small GPT in evaluation mode; perturbed, none of its weights is 0 or 1."""
    config = {"vocab_size": 31, "block_size": 12, "n_layer": 2, "n_head": 2, "n_embd": 16} | changes
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(perturb * torch.randn_like(parameter))
    return model


def random_ids(*shape, vocab_size=31, seed=0):
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))


# --- GPTConfig


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_embd": 10, "n_head": 4}, r"n_embd 10.*n_head 4"),
        ({"vocab_size": 0}, r"vocab_size.*0"),
        ({"block_size": -3}, r"block_size.*-3"),
        ({"n_layer": 0}, r"n_layer.*0"),
        ({"n_head": 0}, r"n_head.*0"),
        ({"n_embd": 0}, r"n_embd.*0"),
        ({"n_embd": 64.0}, r"n_embd.*64\.0"),
        ({"vocab_size": "65"}, r"vocab_size.*'65'"),
        ({"position": "alibi"}, r"position.*'learned', 'sinusoidal', 'rotary'.*'alibi'"),
        ({"activation": "swish"}, r"activation.*'gelu', 'relu'.*'swish'"),
        ({"dropout": 1.0}, r"dropout.*1\.0"),
        ({"dropout": -0.1}, r"dropout.*-0\.1"),
        ({"dropout": math.nan}, r"dropout.*nan"),
        ({"position": "rotary", "n_embd": 20, "n_head": 4}, r"even.*5"),
    ],
)
def test_impossible_configurations_say_what_is_wrong(changes, words):
    with pytest.raises(ValueError, match=words):
        GPTConfig(**{"vocab_size": 65, "block_size": 8} | changes)


def test_configuration_is_frozen_and_knows_the_head_size():
    config = GPTConfig(65, 8, n_head=4, n_embd=20)
    assert config.head_size == 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.n_head = 2


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_gpt2_sizes_have_the_published_number_of_parameters(size, parameters):
    with torch.device("meta"):  # shapes without memory
        assert GPT(GPTConfig.gpt2(size)).num_parameters() == parameters


def test_unknown_gpt2_lists_the_known():
    with pytest.raises(
        ValueError, match=r"'gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl', not 'gpt3'"
    ):
        GPTConfig.gpt2("gpt3")


# --- GPT-2, weight for weight


def transplant(model, reference):
    """Copy the weights of a transformers GPT-2 into ours: its Conv1D holds them transposed."""
    theirs = {
        key.removeprefix("transformer."): value for key, value in reference.state_dict().items()
    }
    ours = model.state_dict()
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        linear = key.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        theirs[key] = value.T if linear else value
    model.load_state_dict(theirs)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("n_embd", "n_head", "vocab_size", "n_layer", "T"),
    [(64, 4, 97, 3, 16), (60, 5, 97, 2, 13), (24, 1, 50, 1, 1), (48, 12, 211, 4, 16)],
)
def test_gpt_equals_transformers_gpt2(n_embd, n_head, vocab_size, n_layer, T, seed):
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"vocab_size": vocab_size, "n_layer": n_layer, "n_head": n_head, "n_embd": n_embd}
    torch.manual_seed(seed)
    reference = GPT2LMHeadModel(GPT2Config(n_positions=16, **shape)).eval()
    with torch.no_grad():  # fresh biases are 0 and gains 1: nobody would miss them
        for parameter in reference.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model = GPT(GPTConfig(block_size=16, **shape)).eval()
    transplant(model, reference)
    ids = random_ids(3, T, vocab_size=vocab_size, seed=seed)
    with torch.no_grad():
        expected = reference(ids).logits
        got = model(ids)
    assert expected.std() > 0.4
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    if T > 1:
        theirs = reference(ids, labels=ids).loss
        torch.testing.assert_close(model.loss(ids[:, :-1], ids[:, 1:]), theirs)


def test_gpt2s_own_layer_names_and_tying():
    model = small()
    assert model.lm_head.weight is model.wte.weight
    assert {key.split(".")[0] for key in model.state_dict()} == {
        *("wte", "wpe", "h", "ln_f", "lm_head")
    }
    assert model.h[1].mlp.c_fc.weight.shape == (64, 16)


# --- every combination of choices


@every_combination
@pytest.mark.parametrize(("vocab_size", "n_embd", "n_layer"), [(65, 64, 4), (100, 256, 1)])
def test_first_loss_is_that_of_an_even_guess(changes, vocab_size, n_embd, n_layer):
    model = small(
        vocab_size=vocab_size, n_embd=n_embd, n_layer=n_layer, n_head=4, block_size=16, **changes
    )
    ids = random_ids(16, 17, vocab_size=vocab_size)
    with torch.no_grad():
        loss = model.loss(ids[:, :-1], ids[:, 1:]).item()
    assert loss == pytest.approx(math.log(vocab_size), abs=0.25)


@every_combination
def test_a_few_steps_lower_the_loss(changes):
    model = small(dropout=0.1, **changes).train()
    ids = random_ids(8, 13)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


@every_combination
def test_no_combination_sees_the_future_or_mixes_rows(changes):
    model = small(**changes)
    for check in (checks.leaks_future, checks.mixes_batch):
        result = check(model)
        assert result.passed, result.message


@every_combination
def test_every_position_matters(changes):
    # The first token, far behind, changes the last prediction; so does the order of the two first.
    model, ids = small(perturb=0.3, **changes), random_ids(1, 12)
    ids[0, :2] = torch.tensor([3, 4])
    other, swapped = ids.clone(), ids.clone()
    other[0, 0] = 5
    swapped[0, :2] = torch.tensor([4, 3])
    with torch.no_grad():
        last, other_last, swapped_last = (model(x)[0, -1] for x in (ids, other, swapped))
    assert (last - other_last).abs().max() > 1e-3
    assert (last - swapped_last).abs().max() > 1e-3


@every_combination
@pytest.mark.parametrize("bias", [True, False])
def test_number_of_parameters_by_formula(changes, bias):
    V, T, L, C = 31, 12, 2, 16
    block = 12 * C * C + 2 * C + bias * (2 * C + 9 * C)  # matrices, gains, biases
    total = V * C + L * block
    total += T * C if changes["position"] == "learned" else 0
    total += C + bias * C if changes["norm_first"] else 0
    total += 0 if changes["tie_weights"] else V * C
    assert small(bias=bias, **changes).num_parameters() == total


@given(data=st.data(), changes=st.sampled_from(COMBINATIONS))
@settings(deadline=None, max_examples=60)
def test_cache_in_chunks_of_any_size_equals_the_full_forward(data, changes):
    model = small(data.draw(st.integers(0, 10**6)), perturb=0.2, **changes)
    T, B = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 3))
    ids, cache, parts, start = random_ids(B, T), model.new_cache(B), [], 0
    with torch.no_grad():
        while start < T:
            stop = start + data.draw(st.integers(1, T - start))
            parts.append(model(ids[:, start:stop], cache))
            start = stop
        expected = model(ids)
    tolerance = 1e-5 * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=tolerance, rtol=0)


@every_combination
def test_last_only_gives_the_last_of_all_scores(changes):
    model, ids = small(perturb=0.2, **changes), random_ids(3, 9)
    with torch.no_grad():
        expected = model(ids)[:, -1:]
        assert expected.std() > 0.1
        torch.testing.assert_close(model(ids, last_only=True), expected)
        cache = model.new_cache(3)
        model(ids[:, :4], cache, last_only=True)
        torch.testing.assert_close(model(ids[:, 4:], cache, last_only=True), expected)


# --- positions


@given(T=st.integers(1, 30), C=st.integers(1, 20))
@settings(deadline=None, max_examples=30)
def test_sinusoids_by_the_formula_of_2017(T, C):
    expected = [
        [
            math.sin(t / 10000 ** (j / C)) if j % 2 == 0 else math.cos(t / 10000 ** ((j - 1) / C))
            for j in range(C)
        ]
        for t in range(T)
    ]
    torch.testing.assert_close(sinusoids(T, C), torch.tensor(expected), atol=1e-5, rtol=0)


def test_sinusoids_are_added_along_time_as_large_as_the_embeddings_and_not_saved():
    model = small(position="sinusoidal", n_embd=128, vocab_size=300, block_size=50)
    assert not any("waves" in key for key in model.state_dict())
    assert not hasattr(model, "wpe")
    sizes = [x.square().mean().sqrt().item() for x in (model.waves, model.wte.weight)]
    assert sizes == pytest.approx([0.02, 0.02], rel=0.05)
    seen = []
    model.drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    ids = torch.full((3, 7), 5)
    model(ids)
    added = seen[0] - model.wte(ids)  # (B, T, C): in each row the same, along time the waves
    expected = 0.02 * math.sqrt(2) * sinusoids(7, 128)
    torch.testing.assert_close(added, expected.expand(3, 7, 128), atol=1e-7, rtol=1e-4)


def test_rotary_has_no_position_vectors():
    model = small(position="rotary")
    assert not hasattr(model, "wpe")
    assert not hasattr(model, "waves")
    assert all(block.attn.rotary for block in model.h)


# --- blocks and initialisation


def test_blocks_norm_before_or_after_the_sum():
    for norm_first in (True, False):
        model = small(norm_first=norm_first, perturb=0.2)
        block, x = model.h[0], torch.randn(2, 5, 16)
        if norm_first:
            half = x + block.attn(block.ln_1(x))
            expected = half + block.mlp(block.ln_2(half))
        else:
            half = block.ln_1(x + block.attn(x))
            expected = block.ln_2(half + block.mlp(half))
        torch.testing.assert_close(block(x), expected)
        assert hasattr(model, "ln_f") == norm_first


def test_activations():
    x = torch.linspace(-3, 3, 50)
    tanh = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(small(activation="gelu").h[0].mlp.act(x), tanh)
    torch.testing.assert_close(small(activation="relu").h[0].mlp.act(x), x.clamp(min=0))


def test_first_weights_have_gpt2s_spread():
    model = small(n_layer=8, n_embd=128, vocab_size=500, block_size=100, tie_weights=False)
    for key, p in model.named_parameters():
        if key.endswith("bias"):
            assert (p == 0).all(), key
        elif p.dim() == 1:
            assert (p == 1).all(), key
        else:
            std = 0.02 / math.sqrt(2 * 8) if key.endswith("c_proj.weight") else 0.02
            assert p.std().item() == pytest.approx(std, rel=0.05), key
            assert abs(p.mean().item()) < 0.1 * std, key


def test_post_norm_with_tied_weights_does_not_start_by_repeating_its_input():
    model = small(norm_first=False, n_embd=512, vocab_size=100)
    ids = random_ids(4, 12, vocab_size=100)
    with torch.no_grad():
        logits = model(ids)
        own = logits.gather(2, ids[..., None])
        model.h[-1].ln_2.weight.fill_(1)
        own_with_plain_gains = model(ids).gather(2, ids[..., None])
    assert own.mean().abs() < 3 * logits.std()
    assert own_with_plain_gains.mean() > 5  # 0.02 · 512 of it is the token itself


def test_bias_false_leaves_no_bias_anywhere():
    assert not any(key.endswith("bias") for key, _ in small(bias=False).named_parameters())


def test_same_seed_same_weights():
    for a, b in zip(small(seed=3).parameters(), small(seed=3).parameters(), strict=True):
        assert torch.equal(a, b)


def test_dropout_is_at_work_in_training_only():
    model, ids = small(dropout=0.2), random_ids(2, 12)
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))
    dropouts = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropouts == [0.2] * (1 + 2 * 2)  # embeddings; attention's and feed-forward's outputs
    assert [block.attn.dropout for block in model.h] == [0.2, 0.2]


@pytest.mark.parametrize("place", ["drop", "h.1.mlp.dropout", "h.1.attn.resid_dropout"])
def test_each_dropout_alone_is_at_work(place):
    model, ids = small(perturb=0.2).train(), random_ids(2, 12)
    assert torch.equal(model(ids), model(ids))
    model.get_submodule(place).p = 0.5
    assert not torch.equal(model(ids), model(ids))


# --- loss


def test_loss_is_the_mean_of_minus_log_probabilities_of_the_targets():
    model, x, y = small(perturb=0.3), random_ids(3, 9), random_ids(3, 9, seed=1)
    probabilities = model(x).double().softmax(-1)
    expected = -sum(
        probabilities[b, t, y[b, t]].log() for b, t in itertools.product(range(3), range(9))
    )
    torch.testing.assert_close(model.loss(x, y).double(), expected / 27)


def test_loss_leaves_out_targets_of_minus_100_and_takes_sliced_targets():
    model, ids = small(perturb=0.3), random_ids(3, 10)
    x, y = ids[:, :-1], ids[:, 1:].clone()
    y[:, 4:] = -100
    expected = F.cross_entropy(model(x)[:, :4].reshape(-1, 31), y[:, :4].reshape(-1))
    torch.testing.assert_close(model.loss(x, y), expected)
    torch.testing.assert_close(
        model.loss(x, ids[:, 1:]), model.loss(x.contiguous(), ids[:, 1:].contiguous())
    )


def test_loss_is_float32_under_autocast():
    model, ids = small(perturb=0.3), random_ids(4, 13)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, loss = model(ids[:, :-1]), model.loss(ids[:, :-1], ids[:, 1:])
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    exact = F.cross_entropy(logits.double().view(-1, 31), ids[:, 1:].reshape(-1))
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)  # bfloat16 keeps three digits
    assert model.bfloat16().loss(ids[:, :-1], ids[:, 1:]).dtype == torch.float32


# --- bad input


@pytest.mark.parametrize("bad", [31, -1])
def test_ids_outside_the_vocabulary_are_no_rows_of_the_embedding(bad):
    """PyTorch says so, on a CPU; `train`, `evaluate` and `generate` say it in a sentence."""
    with pytest.raises(IndexError):
        small()(torch.tensor([[0, bad]]))


def test_the_first_and_the_last_id_are_inside():
    assert small()(torch.tensor([[0, 30]])).shape == (1, 2, 31)


@every_position
def test_too_many_tokens_name_both_numbers(position):
    model = small(position=position)
    with pytest.raises(ValueError, match=r"13 .*block_size 12"):
        model(random_ids(1, 13))
    cache = model.new_cache()
    model(random_ids(1, 10), cache)
    with pytest.raises(ValueError, match=r"13 .*block_size 12"):
        model(random_ids(1, 3), cache)
    assert [part.length for part in cache] == [10, 10]
    assert model(random_ids(1, 2), cache).shape == (1, 2, 31)


@pytest.mark.parametrize("shape", [(5,), (), (1, 2, 3), (2, 0), (0, 2)])
def test_ids_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        small()(torch.zeros(shape, dtype=torch.long))


def test_a_cache_for_another_batch_size_is_refused():
    model = small()
    with pytest.raises(ValueError, match="B, H, D"):
        model(random_ids(1, 2), model.new_cache(batch_size=3))


# --- elsewhere than on a CPU in float32


def test_meta_device_runs_the_path_a_gpu_takes():
    with torch.device("meta"):
        model = GPT(GPTConfig(31, 12, n_layer=1, n_head=2, n_embd=16))
        logits = model(
            torch.empty(2, 5, dtype=torch.long)
        )  # no look at the ids: they have no values
    assert logits.shape == (2, 5, 31)
    assert logits.device.type == "meta"


def test_cache_has_the_models_dtype():
    model = small().bfloat16()
    cache = model.new_cache()
    assert cache[0].keys.dtype == torch.bfloat16
    assert model(random_ids(1, 3), cache).dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_position
def test_gpu_gives_the_cpus_logits(position):
    model, ids = small(position=position, perturb=0.2), random_ids(2, 12)
    expected = model(ids)
    model.cuda()
    cache = model.new_cache(2)
    parts = [model(ids[:, :5].cuda(), cache), model(ids[:, 5:].cuda(), cache)]
    torch.testing.assert_close(torch.cat(parts, 1).cpu(), expected, atol=1e-3, rtol=1e-3)
