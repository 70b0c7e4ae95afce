"""`scale.cost`: counts against published sizes, PyTorch's own counters and sums by hand."""

import itertools
import re
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from llmkit.model import GPT, GPTConfig
from llmkit.optim import configure_optimizers
from llmkit.scale import cost
from llmkit.speed import cpu
from llmkit.speed.fast_gpt import FastGPT, FastGPTConfig

SMALL = dict(vocab_size=65, block_size=64, n_layer=3, n_head=4, n_embd=128)
VARIANTS = [
    {},
    {"bias": False},
    {"tie_weights": False},
    {"position": "sinusoidal"},
    {"position": "rotary"},
    {"norm_first": False},
    {"activation": "relu"},
]


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_the_four_sizes_of_gpt2(name, published):
    assert sum(cost.parameters(GPTConfig.gpt2(name)).values()) == published


def test_nothing_is_drawn_to_be_counted():
    for config in (GPTConfig(**SMALL), FastGPTConfig(**SMALL)):
        assert {p.device.type for p in cost.skeleton(config).parameters()} == {"meta"}


def test_gpt2_by_hand():
    C = 768
    assert cost.parameters(GPTConfig.gpt2()) == {
        "token embeddings": 50257 * C,
        "positions": 1024 * C,
        "norms": (2 * 12 + 1) * 2 * C,
        "attention": 12 * (C * 3 * C + 3 * C + C * C + C),
        "feed-forward": 12 * (C * 4 * C + 4 * C + 4 * C * C + C),
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_parts_sum_to_the_model(variant):
    config = GPTConfig(**SMALL | variant)
    parts = cost.parameters(config)
    assert sum(parts.values()) == GPT(config).num_parameters()
    assert ("output" in parts) is (not config.tie_weights)
    assert ("positions" in parts) is (config.position == "learned")
    assert "other" not in parts


def test_parts_of_a_fast_gpt():
    config = FastGPTConfig(**SMALL)
    parts = cost.parameters(config)
    model = FastGPT(config)
    assert sum(parts.values()) == model.num_parameters()
    assert parts["n-gram embeddings"] == sum(p.numel() for p in model.ngrams.parameters()) > 0
    assert parts["attention"] == 3 * 4 * 128 * 128
    assert parts["feed-forward"] == 3 * 8 * 128 * 128
    assert parts["output"] == 65 * 128


def count_flops(config, B, T):
    """What PyTorch's counter sees of a forward and a backward pass, per token."""
    model = cost.skeleton(config)
    x = torch.zeros(B, T, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss = model.loss(x, x)
        forward = counter.get_total_flops()
        loss.backward()
    return forward / (B * T), counter.get_total_flops() / (B * T)


@pytest.mark.parametrize("T", [64, 17])
@pytest.mark.parametrize("variant", VARIANTS)
def test_flops_are_those_that_pytorch_counts(variant, T):
    config = GPTConfig(**SMALL | variant)
    flops = cost.flops_per_token(config, T)
    forward, both = count_flops(config, 2, T)
    assert both == flops
    assert forward == flops / 3
    if config.block_size == T:
        assert cost.flops_per_token(config) == flops


def test_flops_of_gpt2_by_hand():
    C, L, T = 768, 12, 1024
    N = L * 12 * C * C + 50257 * C
    assert cost.flops_per_token(GPTConfig.gpt2()) == 6 * N + 12 * L * T * C


def test_flops_of_a_fast_gpt():
    config = FastGPTConfig(**SMALL)
    assert cost.flops_per_token(config, 10) == 6 * (3 * 12 * 128 * 128 + 65 * 128) + 12 * 30 * 128


def saved_bytes(model, B, T, dtype):
    """The bytes that autograd keeps of a forward pass, each storage once, without the weights."""
    storages, kept = {}, []
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept.append(storage)  # so that no other takes its address
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    x, y = (torch.zeros(B, T, dtype=torch.int64) for _ in range(2))
    mixed = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    with saved_tensors_hooks(pack, lambda tensor: tensor), mixed:
        model.loss(x, y)
    return sum(storages.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "variant", [{}, {"activation": "relu"}, {"position": "rotary"}, {"bias": False}]
)
@pytest.mark.parametrize(
    ("shape", "B", "T"), [({}, 4, 64), ({}, 7, 32), (dict(n_layer=1, n_embd=96), 2, 64)]
)
@pytest.mark.parametrize("fused", [True, False])
def test_activations_are_those_that_autograd_keeps(monkeypatch, variant, shape, B, T, dtype, fused):
    monkeypatch.setattr(cpu, "fuses", lambda *_: fused)
    config = GPTConfig(**SMALL | shape | variant)
    estimate = cost.training_memory(config, B, T, dtype=dtype, fused=fused)["activations"]
    model = GPT(config)
    with cpu.tuned(model):
        counted = saved_bytes(model, B, T, getattr(torch, dtype))
    # Rotary also keeps tables of angles, alike for every sequence, which the estimate leaves out.
    rel = 0.02 if config.position == "rotary" else 0.001
    assert estimate == pytest.approx(counted, rel=rel)


def test_gradient_checkpointing_keeps_the_inputs_of_the_blocks():
    config = GPTConfig(**SMALL)
    model = GPT(config)
    everything = cost.training_memory(config, 4)["activations"]
    estimate = cost.training_memory(config, 4, gradient_checkpointing=True)["activations"]
    model.gradient_checkpointing = True
    kept = saved_bytes(model, 4, 64, torch.float32)
    last = 4 * 64 * (8 * 128 + 4 * 65 + 24)
    block = (everything - last) / 3
    assert estimate == pytest.approx(kept - last + block, rel=0.02)
    assert estimate < 0.6 * everything


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weights_gradients_and_optimizer_state_are_what_a_step_leaves(optimizer):
    config = GPTConfig(**SMALL)
    model = GPT(config)
    memory = cost.training_memory(config, 1, optimizer=optimizer)
    model.loss(*torch.zeros(2, 1, 64, dtype=torch.int64)).backward()
    optimizers = configure_optimizers(model, optimizer)
    for part in optimizers:
        part.step()
    state = [t for o in optimizers for s in o.state.values() for t in s.values()]
    assert memory["weights"] == sum(p.nbytes for p in model.parameters())
    assert memory["gradients"] == sum(p.grad.nbytes for p in model.parameters())
    assert memory["optimizer state"] == sum(t.nbytes for t in state if t.numel() > 1)


def test_memory_of_other_models_is_not_guessed():
    with pytest.raises(TypeError, match="FastGPTConfig"):
        cost.training_memory(FastGPTConfig(**SMALL), 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matmul_peak_is_the_work_of_the_fastest_product_over_its_time(monkeypatch, dtype):
    clock = itertools.accumulate(itertools.cycle([0.5, 0.25, 0.5, 0.125]))  # seconds
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    peak = cost.matmul_peak("cpu", dtype, seconds=4, size=64)
    assert peak == 2 * 64**3 / 0.125


def test_matmul_peak_tries_both_ways(monkeypatch):
    monkeypatch.setattr(cpu, "_medium_is_exact", lambda: True)
    monkeypatch.setattr(cpu, "is_amd", lambda: True)
    seen = []
    multiply = torch.mm
    monkeypatch.setattr(
        torch, "mm", lambda *xs: (seen.append(torch.get_float32_matmul_precision()), multiply(*xs))
    )
    assert cost.matmul_peak(seconds=0.001, size=4) > 0
    assert set(seen) == {"highest", "medium"}


def test_peak_memory_counts_bytes():
    peak = cost.peak_memory("cpu")
    assert peak > 50_000_000  # PyTorch alone takes more
    status = Path("/proc/self/status")
    if status.exists():  # what Linux itself says of this process, in kB
        kilobytes = int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])
        assert peak == pytest.approx(kilobytes * 1024, rel=0.02)


def test_macos_counts_in_bytes_already(monkeypatch):
    pytest.importorskip("resource")
    monkeypatch.setattr(sys, "platform", "linux")
    on_linux = cost.peak_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cost.peak_memory() == pytest.approx(on_linux / 1024, rel=0.02)


def test_peak_memory_of_a_gpu_is_what_torch_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 12_345)
    assert cost.peak_memory("cuda") == 12_345


def test_peak_memory_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert cost.peak_memory("cpu") == 0
