"""`llmkit.optim`: who updates what, and the shape of the schedule."""

import itertools
import math

import pytest
import torch
from torch import nn

from llmkit.model import GPT, GPTConfig
from llmkit.optim import (
    Muon,
    clip_gradient,
    configure_optimizers,
    hidden_matrices,
    lr_schedule,
    orthogonalised,
    set_learning_rate,
)
from llmkit.speed.fast_gpt import FastGPT, FastGPTConfig

SMALL = dict(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16)
MODELS = [
    GPT(GPTConfig(**SMALL)),
    GPT(GPTConfig(**SMALL, tie_weights=False)),
    FastGPT(FastGPTConfig(**SMALL)),
]


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_has_exactly_one_optimizer(model, name):
    optimizers = configure_optimizers(model, name)
    updated = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(updated) == sorted(id(p) for p in model.parameters())


def test_muon_takes_the_inner_matrices_and_nothing_else():
    model = GPT(GPTConfig(**SMALL, tie_weights=False))
    matrices = {id(weight) for weight in hidden_matrices(model)}
    names = {name for name, p in model.named_parameters() if id(p) in matrices}
    kinds = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert names == {f"h.{layer}.{kind}.weight" for layer in range(2) for kind in kinds}
    adamw, muon = configure_optimizers(model, "muon")
    assert isinstance(adamw, torch.optim.AdamW)
    assert isinstance(muon, torch.optim.Muon)
    assert {id(p) for p in muon.param_groups[0]["params"]} == matrices


def test_the_head_is_known_by_what_it_is_and_not_by_its_size():
    """A block's matrix may have as many rows as the vocabulary: here 4 * 16 = 64, and 3 * 16."""
    for vocab_size in (64, 48, 16):
        model = GPT(GPTConfig(**SMALL | dict(vocab_size=vocab_size), tie_weights=False))
        inner = {part.weight for part in model.h.modules() if isinstance(part, nn.Linear)}
        assert set(hidden_matrices(model)) == inner
        assert set(hidden_matrices(torch.compile(model))) == inner


def test_the_head_of_a_readers_own_model_is_the_last_layer_with_rows_for_the_vocabulary():
    model = nn.Sequential(nn.Embedding(64, 16), nn.Linear(16, 64), nn.Linear(64, 16))
    model.append(nn.Linear(16, 64)).append(nn.Linear(16, 64))
    model[3].weight = model[0].weight  # a layer that shares the embedding's memory
    model.config = GPTConfig(vocab_size=64, block_size=8)
    assert hidden_matrices(model) == [model[1].weight, model[2].weight]


def test_what_cannot_learn_is_refused():
    model = GPT(GPTConfig(**SMALL))
    for part in model.h:
        part.requires_grad_(False)
    with pytest.raises(ValueError, match=r"here all of them are frozen .*: use optimizer='adamw'"):
        configure_optimizers(model, "muon")
    with pytest.raises(ValueError, match="no weights to train: all are frozen"):
        configure_optimizers(model.requires_grad_(False))


def test_without_inner_matrices_muon_is_adamw_alone():
    [adamw] = configure_optimizers(nn.Embedding(5, 5), "muon")
    assert isinstance(adamw, torch.optim.AdamW)


@pytest.mark.parametrize("longest", [0.5, 1e6])
def test_the_gradient_is_clipped_as_pytorch_does_it(longest):
    model, reference = nn.Linear(3, 3), nn.Linear(3, 3)
    for layer in (model, reference):
        layer.weight.grad = torch.arange(9.0).view(3, 3)
        layer.bias.grad = torch.arange(3.0) - 7
    assert clip_gradient(model, longest) is None
    nn.utils.clip_grad_norm_(reference.parameters(), longest)
    assert torch.equal(model.weight.grad, reference.weight.grad)
    assert torch.equal(model.bias.grad, reference.bias.grad)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (math.nan, "gradient of bias became nan"),
        (-math.inf, "gradient of bias became infinite"),
        (1e30, "gradient became infinitely long"),  # the square is beyond float32
    ],
)
def test_a_gradient_that_is_no_number_is_told_and_left(value, told):
    model = nn.Linear(2, 2)
    model.weight.grad, model.bias.grad = torch.ones(2, 2), torch.tensor([1.0, value])
    assert clip_gradient(model, 1.0) == told
    assert torch.equal(model.weight.grad, torch.ones(2, 2))


@pytest.mark.parametrize("native", [True, False])
def test_muon_does_what_pytorchs_does(monkeypatch, native):
    """Square, wide and tall matrices, two of a shape, and one that has no gradient."""
    monkeypatch.setattr("llmkit.optim.multiplies_bfloat16", lambda device: native)
    torch.manual_seed(0)
    shapes = [(6, 6), (6, 6), (24, 6), (24, 6), (6, 24), (18, 6), (5, 7)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    pairs = [
        (ours, Muon(ours, lr=0.1, weight_decay=0.5)),
        (theirs, torch.optim.Muon(theirs, lr=0.1, weight_decay=0.5)),
    ]
    for _ in range(3):
        gradients = [torch.randn(shape) for shape in shapes[:-1]]
        for weights, optimizer in pairs:
            for weight, gradient in zip(weights[:-1], gradients, strict=True):
                weight.grad = gradient.clone()
            optimizer.step()
            optimizer.param_groups[0]["lr"] *= 0.5
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=2e-3 if native else 2e-2)  # bfloat16: three digits
    assert pairs[0][1].state_dict()["state"].keys() == pairs[1][1].state_dict()["state"].keys()


@pytest.mark.parametrize("native", [True, False])
def test_muon_multiplies_in_bfloat16_only_where_the_hardware_does(monkeypatch, native):
    """Where it is emulated (most laptops), a product takes up to 25 times as long."""
    monkeypatch.setattr("llmkit.optim.multiplies_bfloat16", lambda device: native)
    settings = dict(ns_coefficients=(3.4445, -4.775, 2.0315), ns_steps=5, eps=1e-7)
    matrices = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    result = orthogonalised(matrices, **settings)
    assert result.dtype == (torch.bfloat16 if native else torch.float32)
    exact = matrices.double()
    exact = exact / exact.norm(dim=(1, 2), keepdim=True)
    for _ in range(5):
        a, b, c = settings["ns_coefficients"]
        gram = exact @ exact.mT
        exact = a * exact + (b * gram + c * gram @ gram) @ exact
    assert (result.double() - exact).abs().max() < (2e-2 if native else 1e-5)


def test_biases_and_norms_are_not_decayed():
    model = GPT(GPTConfig(**SMALL))
    for optimizer in configure_optimizers(model, "adamw", weight_decay=0.3):
        for group in optimizer.param_groups:
            assert {p.dim() >= 2 for p in group["params"]} == {group["weight_decay"] == 0.3}


def test_frozen_parameters_are_left_out():
    model = GPT(GPTConfig(**SMALL))
    model.h[0].requires_grad_(False)
    for name in ("adamw", "muon"):
        for optimizer in configure_optimizers(model, name):
            assert all(p.requires_grad for group in optimizer.param_groups for p in group["params"])


def test_adamw_does_what_pytorchs_does():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 3), nn.Linear(3, 3)
    theirs.load_state_dict(ours.state_dict())
    (optimizer,) = configure_optimizers(ours, "adamw", learning_rate=0.1, weight_decay=0.5)
    reference = torch.optim.AdamW(
        [
            {"params": [theirs.weight], "weight_decay": 0.5},
            {"params": [theirs.bias], "weight_decay": 0},
        ],
        lr=0.1,
        betas=(0.9, 0.95),
    )
    x = torch.randn(4, 3)
    for _ in range(3):
        for model, step in ((ours, optimizer), (theirs, reference)):
            model.zero_grad()
            model(x).square().mean().backward()
            step.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)
    assert torch.allclose(ours.bias, theirs.bias, atol=1e-6)


def test_the_default_rates_and_an_unknown_name():
    model = GPT(GPTConfig(**SMALL))
    assert configure_optimizers(model, "adamw")[0].param_groups[0]["lr"] == 1e-3
    adamw, muon = configure_optimizers(model, "muon", adamw_share=0.5)
    assert {g["lr"] for g in adamw.param_groups} == {0.01}
    assert {g["lr"] for g in muon.param_groups} == {0.02}
    with pytest.raises(ValueError, match="'adamw', 'muon', not 'sgd'"):
        configure_optimizers(model, "sgd")


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_the_schedule_rises_then_falls(kind):
    shares = [lr_schedule(step, 100, 10, kind, 0.1) for step in range(100)]
    assert shares[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert shares[10] == max(shares) == 1
    assert shares[99] == min(shares[10:]) == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(shares[10:]))
    middle = (lr_schedule(54, 100, 10, kind, 0.1) + lr_schedule(55, 100, 10, kind, 0.1)) / 2
    assert middle == pytest.approx(0.55, abs=0.01)


def test_cosine_equals_pytorchs():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=49, eta_min=0.2)
    for step in range(50):
        assert lr_schedule(step, 50, 0, "cosine", 0.2) == pytest.approx(
            optimizer.param_groups[0]["lr"]
        )
        optimizer.step()
        reference.step()


def test_edges_of_the_schedule():
    assert lr_schedule(0, 1, 0, "cosine", 0.1) == 1
    assert lr_schedule(9, 10, 10) == 1  # all warmup
    assert math.isclose(lr_schedule(1, 2, 0, "linear", 0.0), 0, abs_tol=1e-12)


def test_set_learning_rate_scales_the_peak():
    optimizers = configure_optimizers(
        GPT(GPTConfig(**SMALL)), "muon", learning_rate=0.4, adamw_share=0.5
    )
    assert set_learning_rate(optimizers, 0.5) == pytest.approx(0.2)
    assert set_learning_rate(optimizers, 0.25) == pytest.approx(0.1)  # of the peak, not of the last
    assert [{g["lr"] for g in o.param_groups} for o in optimizers] == [{0.05}, {0.1}]
