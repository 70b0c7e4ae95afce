import os
import random
import subprocess
import sys

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
    with pytest.raises(ValueError, match=r"seed must be (from 0 to 4294967295|a whole number)"):
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


def test_a_processor_multiplies_in_bfloat16_where_it_has_the_units(monkeypatch):
    for about, native in (
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False}, False),
        ({}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda about=about: about, raising=False)
        assert runtime.multiplies_bfloat16("cpu") is native
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older PyTorch knows nothing
    assert not runtime.multiplies_bfloat16("cpu")
    assert not runtime.multiplies_bfloat16("meta")


# How threads wait


@pytest.mark.parametrize(
    ("before", "given", "seen"),
    [
        ("", None, ["PASSIVE", "1000"]),
        ("", "ACTIVE", ["ACTIVE", "None"]),  # the reader's own word stands
        ("import torch; ", None, ["None", "None"]),  # too late: torch has read it
    ],
)
def test_threads_soon_sleep_while_they_wait(before, given, seen):
    names = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"]
    environment = {k: v for k, v in os.environ.items() if k not in names}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    code = before + f"import os, llmkit; print(*map(os.environ.get, {names}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == seen
