"""Devices: what llmkit does with a model on one device and ids on another (see pretend.py)."""

from __future__ import annotations

import pretend
import pytest
import torch

import llmkit
from llmkit.data import check_ids, fingerprint
from llmkit.evaluation import token_losses

# Run alone, for the device stays in the process: pytest -n 0 -m slow tests/test_pretend_device.py
pytestmark = pytest.mark.slow
IDS = torch.arange(400) % 17
SHAPE = {"block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16, "dropout": 0.1}


@pytest.fixture(scope="module")
def device():
    return pretend.start()


@pytest.fixture(params=["learned", "sinusoidal", "rotary", "fast"])
def model(request, device):
    torch.manual_seed(0)
    if request.param == "fast":
        shape = SHAPE | {"ngram_rows": (64,)}
        return llmkit.FastGPT(llmkit.FastGPTConfig(17, **shape)).to(device)
    return llmkit.GPT(llmkit.GPTConfig(17, position=request.param, **SHAPE)).to(device)


@pytest.fixture(params=["cpu", "pretend"])
def ids(request, device):
    return IDS.to(request.param)


def test_what_cuda_refuses_is_refused(device):
    here, there = torch.arange(4), torch.arange(4).to(device)
    refused = [
        lambda: here + there,
        lambda: there.add_(here),
        lambda: here[there],
        lambda: torch.cat([here, there]),
        lambda: torch.tensor(1).add_(there[0]),
        lambda: torch.nn.functional.embedding(here, torch.ones(4, 2, device=device)),
        lambda: torch.randn(4, device=device, generator=torch.Generator()),
        lambda: there.float().numpy(),
    ]
    for crossing in refused:
        with pytest.raises(RuntimeError):
            crossing()
    assert (there + torch.tensor(1)).device == there[here].device == device
    assert here.copy_(there).device == there.cpu().device == torch.device("cpu")
    assert torch.tensor(1, device=device).device == there.new_tensor([1]).device == device


def test_evaluate(model, ids, device):
    assert llmkit.evaluate(model, ids).tokens == len(ids) - 1
    assert token_losses(model, ids[None, :8], ids[None, 1:9]).device == device


@pytest.mark.parametrize("use_cache", [True, False])
def test_generate(model, ids, use_cache):
    options = {"max_new_tokens": 12, "top_k": 5, "top_p": 0.9, "seed": 1, "use_cache": use_cache}
    one = llmkit.generate(model, ids[:8], **options)
    two = llmkit.generate(model, ids[:16].view(2, 8), **options)
    assert one.device == two.device == ids.device
    assert torch.equal(one.cpu(), two[0].cpu())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_train_and_resume(model, ids, device, dtype, tmp_path):
    config = llmkit.TrainConfig(steps=2, batch_size=2, dtype=dtype, eval_every=1)
    saved = isinstance(model, llmkit.GPT)  # a FastGPT has no checkpoints
    callbacks = [llmkit.Checkpointer(tmp_path / "run", every=1)] if saved else []
    history = llmkit.train(model, ids, ids[:50], config, callbacks=callbacks)
    assert history.step == [1, 2]
    if not saved:
        return
    loaded, _ = llmkit.checkpoint.load(tmp_path / "run", device)
    assert {weight.device for weight in loaded.parameters()} == {device}
    state = llmkit.checkpoint.load_state(tmp_path / "run")
    llmkit.train(loaded, ids, ids[:50], config, resume=state)


def test_data(ids, device):
    for onto in (device, torch.device("cpu")):
        x, y = next(llmkit.Batches(ids, 8, 4, device=onto))
        assert x.device == y.device == onto
    assert fingerprint(ids) == fingerprint(IDS)
    assert check_ids(ids, 17).device == ids.device


def test_attention_and_masks(device):
    q = torch.randn(1, 2, 4, 8).to(device)
    mask = llmkit.causal_mask(4, device)
    assert {out.device for out in (mask, *llmkit.attention(q, q, q, mask))} == {device}


@pytest.mark.slow
def test_checks(model):
    assert [found.name for found in llmkit.checks.run(model)]
