import math
import random
from types import MethodType, SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from llmkit import checks
from llmkit.attention import causal_mask
from llmkit.checks import leaks_future, mixes_batch, overfits_batch, starts_uniform
from llmkit.model import GPT, GPTConfig
from llmkit.speed.fast_gpt import FastGPT, FastGPTConfig

V, T, C = 23, 12, 16


class Toy(nn.Module):
    """A one-layer model of 30 lines, sound as it is, into which each test plants one fault."""

    def __init__(self, **faults):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=V, block_size=T)
        self.wte = nn.Embedding(V, C)
        self.wpe = nn.Embedding(T, C)
        self.c_attn = nn.Linear(C, 3 * C)
        self.norm = nn.LayerNorm(C)
        self.head = nn.Linear(C, V)
        self.faults = faults
        nn.init.normal_(self.head.weight, std=faults.get("head_std", 0.02))
        if faults.get("zero_head"):
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def weights(self, q, k):  # (B, T, C) -> (B, T, T)
        n = q.size(1)
        return (
            (q @ k.mT / math.sqrt(C)).masked_fill(~causal_mask(n, q.device), -math.inf).softmax(-1)
        )

    def positions(self, x):  # (B, T, C)
        return self.wpe.weight[: x.size(1)]

    def forward(self, ids):
        x = self.wte(ids)
        x = x + self.positions(x)
        q, k, v = self.c_attn(x).split(C, dim=-1)
        x = self.norm(x + self.weights(q, k) @ v)
        return self.head(x)


def filled(mask, value=-math.inf, dim=-1):
    """A Toy.weights with another mask, another value in its place, another axis for the softmax."""

    def weights(self, q, k):
        scores = q @ k.mT / math.sqrt(C)
        return scores.masked_fill(~mask(q.size(1)), value).softmax(dim)

    return {"weights": weights}


def everything(n):
    return torch.ones(n, n, dtype=torch.bool)


def toy(_kind="Toy", seed=0, **changes):
    """A Toy with some of its methods (functions) replaced, and some faults switched on."""
    methods = {name: value for name, value in changes.items() if callable(value)}
    faults = {name: value for name, value in changes.items() if not callable(value)}
    torch.manual_seed(seed)
    return type(_kind, (Toy,), methods)(**faults)


def gpt(**changes):
    torch.manual_seed(0)
    return GPT(GPTConfig(V, T, n_layer=2, n_head=2, n_embd=C, **changes))


# --- sound models


class Bigram(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=65, block_size=8)
        self.table = nn.Parameter(torch.zeros(65, 65))

    def forward(self, ids):
        return self.table[ids]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=V, block_size=T)
        self.wte = nn.Embedding(V, 32)
        self.lstm = nn.LSTM(32, 32, num_layers=2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(32, V)

    def forward(self, ids):
        return self.head(self.lstm(self.wte(ids))[0])


@pytest.mark.parametrize(
    "make",
    [
        toy,
        lambda: toy(zero_head=True),
        gpt,
        lambda: gpt(norm_first=False, dropout=0.3, position="sinusoidal", activation="relu"),
        lambda: gpt(position="rotary", tie_weights=False, bias=False).train(),
        lambda: FastGPT(FastGPTConfig(vocab_size=V, block_size=T, n_layer=2, n_head=2, n_embd=32)),
        Bigram,
        Recurrent,
    ],
    ids=["toy", "zero-head", "gpt2", "gpt-2017", "gpt-rotary", "fast", "bigram", "recurrent"],
)
def test_sound_models_pass_everything(make):
    results = checks.run(make())
    assert [result.name for result in results] == [
        *("leaks_future", "mixes_batch", "starts_uniform", "overfits_batch")
    ]
    assert all(result.passed for result in results), [str(result) for result in results]


def test_the_smallest_models_pass():
    for model in (GPT(GPTConfig(2, 1, 1, 1, 8)), GPT(GPTConfig(1, 4, 1, 1, 8))):
        for check in (leaks_future, mixes_batch, starts_uniform):
            result = check(model)
            assert result.passed, result.message


# --- leaks_future

LEAKS = {
    "no mask": (filled(everything), 0),
    "one ahead": (filled(lambda n: everything(n).tril(1)), None),
    "reversed": (filled(lambda n: everything(n).triu()), 0),
    "small finite": (filled(causal_mask, value=-8.0), 0),
    "multiplied by 0": (
        {"weights": lambda self, q, k: (q @ k.mT * causal_mask(q.size(1))).softmax(-1)},
        0,
    ),
    "softmax along the queries": (filled(causal_mask, dim=-2), 0),
    "masked after softmax": (
        {"weights": lambda self, q, k: (q @ k.mT).softmax(-1) * causal_mask(q.size(1))},
        None,
    ),
    "norm over time": (
        {
            "forward": lambda self, ids: (
                Toy.forward(self, ids) - Toy.forward(self, ids).mean(1, keepdim=True)
            )
        },
        0,
    ),
    "a leak of one position in twelve": (
        {
            "forward": lambda self, ids: (
                Toy.forward(self, ids)
                + F.pad(self.wte(ids)[:, 8:9], (0, V - C, 7, T - 8))[:, : ids.size(1)]
            )
        },
        7,
    ),
}


@pytest.mark.parametrize("zero_head", [False, True], ids=["", "behind a zero head"])
@pytest.mark.parametrize("leak", LEAKS)
def test_leaks_are_found_and_placed(leak, zero_head):
    methods, position = LEAKS[leak]
    result = leaks_future(toy(zero_head=zero_head, **methods))
    assert not result.passed
    assert result.message.startswith("the model sees the future")
    if position is not None:
        assert f"logits at position {position} change" in result.message


def test_one_ahead_is_seen_one_position_before_the_change():
    message = leaks_future(toy(**filled(lambda n: everything(n).tril(1)))).message
    assert "at position 0 change when only tokens after position 0 do" in message


def test_the_zero_head_would_hide_the_leak_without_the_noise():
    model = toy(zero_head=True, **filled(everything))
    ids = torch.zeros(1, T, dtype=torch.long)
    assert torch.equal(model(ids), model(ids + 1))


def test_leak_behind_zero_initialised_residual_projections():
    model = gpt()
    with torch.no_grad():
        for block in model.h:
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
    assert leaks_future(model).passed

    def unmasked(self, x, cache=None):
        q, k, v = self.c_attn(x).split(C, dim=-1)
        return self.c_proj(F.scaled_dot_product_attention(q, k, v))

    for block in model.h:
        block.attn.forward = MethodType(unmasked, block.attn)
    assert not leaks_future(model).passed


class EncoderDecoder(nn.Module):
    """The "GPT" of tutorials: PyTorch's encoder-decoder, given its own input as the target."""

    def __init__(self, positions="time", causal=False):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=V, block_size=T)
        self.wte = nn.Embedding(V, C)
        self.register_buffer("table", torch.randn(T, 1, C), persistent=False)
        self.transformer = nn.Transformer(C, 2, 1, 1, 32, dropout=0.1, batch_first=True)
        self.head = nn.Linear(C, V)
        self.positions, self.causal = positions, causal

    def forward(self, ids):
        x = self.wte(ids)
        n = ids.size(1)
        x = x + (self.table[:n, 0] if self.positions == "time" else self.table[: len(ids)])
        mask = nn.Transformer.generate_square_subsequent_mask(n) if self.causal else None
        masks = {"src_mask": mask, "tgt_mask": mask, "memory_mask": mask}
        return self.head(self.transformer(x, x, **masks))


def test_the_encoder_decoder_of_tutorials_reads_its_own_answer():
    result = leaks_future(EncoderDecoder())
    assert not result.passed
    assert "position 0 change" in result.message
    assert "training" not in result.message
    assert leaks_future(EncoderDecoder(causal=True)).passed
    assert mixes_batch(EncoderDecoder()).passed


def test_batch_norm_shares_statistics_over_time_and_rows_in_training_mode():
    class Normed(Toy):
        def __init__(self):
            super().__init__()
            self.batch_norm = nn.BatchNorm1d(V)

        def forward(self, ids):
            return self.batch_norm(super().forward(ids).mT).mT

    for check in (leaks_future, mixes_batch):
        model = Normed()
        result = check(model)
        assert not result.passed
        assert result.message.endswith("(in training mode)")
        assert model.batch_norm.num_batches_tracked == 0


def test_long_sequences_are_sampled():
    model = GPT(GPTConfig(V, 300, 1, 1, 8))
    assert "tried at 32 of 256 positions" in leaks_future(model).message


# --- mixes_batch


def test_a_norm_over_the_batch_is_found():
    def forward(self, ids):
        logits = Toy.forward(self, ids)
        return (logits - logits.mean(0)) / (logits.std(0) + 1)

    result = mixes_batch(toy(forward=forward))
    assert not result.passed
    assert "the rows of a batch are mixed" in result.message
    assert "row 1, first at position 0, change when only row 0 does" in result.message


def test_attention_over_the_batch_is_found_behind_a_zero_head():
    def forward(self, ids):
        return Toy.forward(self, ids.T).transpose(0, 1)

    assert not mixes_batch(toy(forward=forward, zero_head=True)).passed


def test_positions_added_along_the_batch_are_found():
    result = mixes_batch(EncoderDecoder(positions="batch", causal=True))
    assert not result.passed
    assert "change with its place in the batch" in result.message

    by_row = toy(positions=lambda self, x: self.wpe.weight[: x.size(0), None])
    assert not mixes_batch(by_row).passed
    assert leaks_future(by_row).passed


# --- starts_uniform


def test_a_head_with_large_weights_is_found():
    result = starts_uniform(toy(head_std=1.0))
    assert not result.passed
    assert "smaller weights in the output layer" in result.message
    assert "ln 23 = 3.135" in result.message


def test_default_embeddings_tied_to_the_head_are_found():
    model = gpt()
    nn.init.normal_(model.wte.weight)
    assert not starts_uniform(model).passed


def test_start_is_measured_on_the_weights_as_they_are():
    result = starts_uniform(toy(zero_head=True))
    assert result.message.startswith("the first loss is ≈ 3.135,")


def test_a_model_surer_than_chance_by_reading_the_answer_is_found():
    def forward(self, ids):  # a shifted copy of the input: the answer itself
        return 20.0 * F.one_hot(ids.roll(-1, 1), V) + 0 * Toy.forward(self, ids)

    assert not starts_uniform(toy(forward=forward)).passed


# --- overfits_batch


def test_overfitting_tells_both_losses():
    result = overfits_batch(toy())
    assert result.passed
    assert "from ≈ 3." in result.message
    assert "ln 23 = 3.135" in result.message


def test_all_weights_frozen():
    result = overfits_batch(toy().requires_grad_(False))
    assert not result.passed
    assert result.message.endswith("something keeps the model from learning")


def test_a_detached_output():
    result = overfits_batch(toy(forward=lambda self, ids: Toy.forward(self, ids).detach()))
    assert not result.passed
    assert "keeps the model from learning, but no gradient reaches wte.weight" in result.message


def test_a_detached_layer_is_named_though_the_head_learns_alone():
    def forward(self, ids):
        return self.head(Toy.forward(self, ids)[..., :C].detach() + self.wte(ids))

    result = overfits_batch(toy(forward=forward))
    assert not result.passed
    assert (
        "no gradient reaches wpe.weight, c_attn.weight, c_attn.bias, norm.weight" in result.message
    )
    assert "wte" not in result.message


def test_a_layer_frozen_on_purpose_is_fine_while_the_rest_learns():
    model = toy()
    model.c_attn.requires_grad_(False)
    assert overfits_batch(model).passed


def test_too_little_to_learn_with():
    model = toy().requires_grad_(False)
    model.norm.bias.requires_grad_(True)
    result = overfits_batch(model)
    assert not result.passed
    assert "something keeps the model from learning" in result.message


def test_no_steps_no_learning():
    assert not overfits_batch(toy(), steps=1).passed


def test_overfits_batch_works_where_gradients_are_switched_off():
    with torch.no_grad():
        assert overfits_batch(toy()).passed
        assert not torch.is_grad_enabled()


# --- what checks leave alone, and what they put up with


class Stateful(Toy):
    """Counts its calls, keeps its last logits with their history, and is noisy in training."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.drop = nn.Dropout(0.5)
        self.last = None

    def forward(self, ids):
        self.calls += 1
        self.last = self.drop(super().forward(ids)) + self.calls
        return self.last


def random_states():
    numpys = np.random.get_state()[1]  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), numpys.tolist()


def test_checks_change_neither_model_nor_mode_nor_random_state():
    model = Stateful()
    model(torch.zeros(1, T, dtype=torch.long))  # from here on deepcopy would refuse model.last
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for mode in (True, False):
        model.train(mode)
        model.norm.train(not mode)
        states = random_states()
        results = checks.run(model)
        assert all(result.passed for result in results), [str(result) for result in results]
        assert random_states() == states
        assert (model.training, model.norm.training) == (mode, not mode)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_mask_kept_in_a_buffer_does_not_hide_a_leak():
    class Buffered(Toy):
        def __init__(self, diagonal):
            super().__init__()
            mask = torch.ones(T, T, dtype=torch.bool).tril(diagonal)
            self.register_buffer("mask", mask, persistent=False)

        def weights(self, q, k):
            n = q.size(1)
            scores = (q @ k.mT).masked_fill(~self.mask[:n, :n], -math.inf)
            return scores.softmax(-1)

    assert leaks_future(Buffered(0)).passed
    assert not leaks_future(Buffered(1)).passed


def test_results_do_not_depend_on_the_random_state():
    def forward(self, ids):  # noisy in every mode
        return Toy.forward(self, ids) + 0.1 * torch.randn(*ids.shape, V)

    results = []
    for seed in (1, 2):
        model = toy(forward=forward)
        torch.manual_seed(seed)
        results.append(checks.run(model))
    assert results[0] == results[1]
    assert results[0][0].passed


def test_rounding_is_not_mistaken_for_a_leak():
    def forward(self, ids):  # the sum of the past, as the sum of everything less that of the rest
        x = self.wte(ids)
        later = x.flip(1).cumsum(1).flip(1) - x
        return self.head(self.norm(x.sum(1, keepdim=True) - later))

    model, ids = toy(forward=forward), torch.arange(T)[None]
    other = torch.cat([ids[:, :6], ids[:, :6]], dim=1)
    assert not torch.equal(model(ids)[:, :6], model(other)[:, :6])
    assert leaks_future(model).passed


def test_nan_is_not_mistaken_for_a_leak_nor_for_soundness():
    model = toy(**filled(lambda n: everything(n).tril(-1)))  # position 0 may look at nothing
    for check in (leaks_future, mixes_batch):
        result = check(model)
        assert not result.passed
        assert "NaN" in result.message
    assert not starts_uniform(model).passed
    assert not overfits_batch(model).passed


def test_logits_of_minus_infinity_are_not_mistaken_for_a_leak():
    def forward(self, ids):
        never = torch.arange(V) == 5
        return Toy.forward(self, ids).masked_fill(never, -math.inf)

    assert leaks_future(toy(forward=forward)).passed
    assert not leaks_future(toy(forward=forward, **filled(everything))).passed


@pytest.mark.parametrize(
    ("forward", "got"),
    [
        (lambda self, ids: (Toy.forward(self, ids), None), "tuple"),
        (lambda self, ids: Toy.forward(self, ids).flatten(0, 1), r"\(12, 23\)"),
        (lambda self, ids: Toy.forward(self, ids)[:, -1], r"\(1, 23\)"),
    ],
)
def test_another_kind_of_output_is_explained(forward, got):
    with pytest.raises(ValueError, match=rf"\(B, T, V\) = \(1, 12, 23\), not {got}"):
        leaks_future(toy(forward=forward))


def test_results_read_well_and_cannot_be_mistaken_for_truth_values():
    good, bad = leaks_future(toy()), leaks_future(toy(**filled(everything)))
    assert (
        str(good)
        == "passed  leaks_future: later tokens change no logits, tried at 11 of 12 positions"
    )
    assert str(bad).startswith("FAILED  leaks_future: the model sees the future: its logits at ")
    with pytest.raises(TypeError, match=r"\.passed"):
        bool(bad)


def test_cudnn_is_off_while_a_model_is_called_and_then_as_it_was(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "flags", None)  # it warns in PyTorch 2.9
    seen = []
    model = Toy()
    model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    assert leaks_future(model).passed
    assert set(seen) == {False}
    assert torch.backends.cudnn.enabled
