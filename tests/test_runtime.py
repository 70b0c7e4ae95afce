import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from llmkit import runtime
from llmkit.data import load_text


@pytest.fixture
def plain_environment(monkeypatch):
    monkeypatch.delenv("LLMKIT_DEVICE", raising=False)
    monkeypatch.delenv("LLMKIT_CORPUS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def draw() -> tuple:
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


@pytest.mark.usefixtures("plain_environment")
def test_a_machine_without_gpu_gets_cpu_float32_and_the_embedded_corpus():
    found = runtime.start()
    assert (found.device, found.dtype) == (torch.device("cpu"), torch.float32)
    assert (found.corpus, found.seed) == ("embedded", 1337)


@pytest.mark.usefixtures("plain_environment")
def test_its_text_is_one_line_that_says_the_same_on_every_cpu_machine(capsys):
    found = runtime.start(seed=7)
    assert repr(found) == "llmkit on cpu · float32 · corpus embedded · seed 7"
    assert str(found) == repr(found)
    assert capsys.readouterr().out == ""


def test_start_seeds_all_three_generators():
    runtime.start(seed=3)
    first = draw()
    assert draw() != first
    runtime.start(seed=3)
    assert draw() == first
    runtime.start(seed=4)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_numpy_cannot_take_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed is {seed}; choose one from 0"):
        runtime.start(seed=seed)


def test_a_refused_device_leaves_the_generators_alone(monkeypatch):
    monkeypatch.setenv("LLMKIT_DEVICE", "toaster")
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="toaster"):
        runtime.start()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_environment_overrides_device_and_corpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LLMKIT_DEVICE", "cpu")
    monkeypatch.setenv("LLMKIT_CORPUS", "julius_caesar")
    found = runtime.start()
    assert (found.device.type, found.corpus) == ("cpu", "julius_caesar")


def test_empty_variables_count_as_unset(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LLMKIT_DEVICE", "")
    monkeypatch.setenv("LLMKIT_CORPUS", "")
    assert repr(runtime.start()) == "llmkit on cpu · float32 · corpus embedded · seed 1337"


@pytest.mark.usefixtures("plain_environment")
def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    found = runtime.start()
    assert (found.device.type, found.dtype) == ("cuda", torch.bfloat16)
    assert repr(found) == "llmkit on cuda · bfloat16 · corpus tiny_shakespeare · seed 1337"
    assert found.pick(cpu=50, gpu=5000) == 5000


def test_pick_takes_the_cpu_budget_on_a_cpu_and_only_names():
    found = runtime.start(device="cpu")
    assert found.pick(cpu=50, gpu=5000) == 50
    with pytest.raises(TypeError):
        found.pick(50, 5000)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_cuda_is_one_sentence():
    with pytest.raises(ValueError, match=r"device 'cuda' here; choose 'cpu'.*Runtime > Change"):
        runtime.start(device="cuda")  # said in code, it wins over LLMKIT_DEVICE


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "hpu"])
def test_a_device_that_cannot_compute_is_refused_by_name(device):
    with pytest.raises(ValueError, match=f"cannot use the device '{device}'") as caught:
        runtime.start(device=device)
    assert "\n" not in str(caught.value)


def test_a_torch_device_is_as_good_as_its_name():
    assert runtime.start(device=torch.device("cpu")).device == torch.device("cpu")


def test_an_unknown_corpus_is_told_when_the_text_is_read(monkeypatch):
    monkeypatch.setenv("LLMKIT_CORPUS", "tiny_shakespear")
    found = runtime.start(device="cpu")  # it may be a file made by a later cell
    with pytest.raises(FileNotFoundError, match=r"the corpora: embedded.*'tiny_shakespeare'\?"):
        load_text(found.corpus)


def test_half_precision_is_bfloat16_only_where_the_hardware_has_it(monkeypatch):
    def like_a_t4(including_emulation=True):
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", like_a_t4)
    assert runtime.default_dtype("cuda") == torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert runtime.default_dtype(torch.device("cuda:0")) == torch.bfloat16
    assert runtime.default_dtype("cpu") == torch.float32


def test_peak_memory_counts_bytes():
    peak = runtime.peak_memory("cpu")
    assert peak > 50_000_000  # PyTorch alone takes more
    status = Path("/proc/self/status")
    if status.exists():  # what Linux itself says of this process, in kB
        kilobytes = int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])
        assert peak == pytest.approx(kilobytes * 1024, rel=0.02)


def test_macos_counts_in_bytes_already(monkeypatch):
    pytest.importorskip("resource")
    monkeypatch.setattr(sys, "platform", "linux")
    on_linux = runtime.peak_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert runtime.peak_memory() == pytest.approx(on_linux / 1024, rel=0.02)


def test_peak_memory_of_a_gpu_is_what_torch_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 12_345)
    assert runtime.peak_memory("cuda") == 12_345


def test_peak_memory_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert runtime.peak_memory("cpu") == 0


def test_fast_matmul_keeps_float32_precision_and_puts_the_setting_back():
    a, b = torch.randn(2, 300, 300, requires_grad=True)
    before = torch.get_float32_matmul_precision()
    plain = a @ b
    with runtime.fast_matmul():
        fast = a @ b
        (gradient,) = torch.autograd.grad(fast.sum(), a)
    assert torch.get_float32_matmul_precision() == before
    exact = a.double() @ b.double()
    assert (fast - exact).abs().max() < 4 * (plain - exact).abs().max()
    assert torch.allclose(gradient, b.detach().sum(dim=1).expand(300, 300), atol=1e-3)
    with pytest.raises(KeyError), runtime.fast_matmul():
        raise KeyError
    assert torch.get_float32_matmul_precision() == before


def test_fast_matmul_is_not_taken_where_precision_would_be_lost(monkeypatch):
    monkeypatch.setattr(runtime, "_medium_is_exact", lambda: False)
    with runtime.fast_matmul():
        assert torch.get_float32_matmul_precision() == "highest"
    monkeypatch.setattr(runtime, "_medium_is_exact", lambda: True)
    with runtime.fast_matmul():
        assert torch.get_float32_matmul_precision() == "medium"
    with runtime.fast_matmul("cuda"):  # there "medium" would mean TF32
        assert torch.get_float32_matmul_precision() == "highest"
