"""`speed.decoding`: a token through the layers' functions is a token through the model."""

import itertools

import pytest
import torch
from torch import nn

from llmkit import GPT, FastGPT, FastGPTConfig, GPTConfig, generate
from llmkit.speed.decoding import Decoder, continue_prompts, knows, quick

V, T = 11, 8
VARIANTS = [
    dict(position=p, norm_first=n, activation=a, bias=b, tie_weights=t)
    for p, n, (a, b, t) in itertools.product(
        ("learned", "sinusoidal", "rotary"),
        (True, False),
        (("gelu", True, True), ("relu", False, False)),
    )
]


def make(**choices):
    """A model whose weights are all far from zero and from one another."""
    torch.manual_seed(0)
    shape = dict(vocab_size=V, block_size=T, n_layer=2, n_head=2, n_embd=12)
    model = GPT(GPTConfig(**shape | choices)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("amd", [True, False])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_a_decoder_gives_what_the_model_gives(monkeypatch, variant, amd):
    monkeypatch.setattr("llmkit.speed.cpu.is_amd", lambda: amd)
    monkeypatch.setattr("llmkit.speed.cpu.LARGE", 1)
    model = make(**variant)
    ids = torch.randint(V, (3, T))
    cache = model.new_cache(3)
    with torch.no_grad():
        expected = model(ids)
        assert knows(model)
        decode = Decoder(model)
        decode(ids[:, :3], cache=cache)
        for t in range(3, T):
            logits = decode(ids[:, t : t + 1], cache)
            assert logits.shape == (3, 1, V)
            torch.testing.assert_close(logits[:, 0].clone(), expected[:, t], atol=1e-5, rtol=1e-5)
        assert cache[0].length == T


def test_it_decodes_under_autocast_as_the_model_does():
    model, ids = make(), torch.randint(V, (2, 4))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        caches = model.new_cache(2), model.new_cache(2)
        for cache in caches:
            model(ids[:, :3], cache=cache)
        expected = model(ids[:, 3:], cache=caches[0])
        found = Decoder(model)(ids[:, 3:], caches[1])
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found.clone(), expected)


def hooked(model):
    model.h[1].attn.register_forward_hook(lambda *_: None)


def replaced(model):
    class Wrapped(nn.Linear):
        pass

    model.h[0].mlp.c_fc = Wrapped(12, 48)


def patched(model):
    model.h[0].forward = lambda x, cache: x


def compiled(model):
    model._compiled_call_impl = model._call_impl  # what Module.compile sets


@pytest.mark.parametrize("change", [hooked, replaced, patched, compiled])
def test_a_model_that_is_not_plain_is_left_as_it_is(change):
    model = make()
    change(model)
    assert not knows(model)
    assert quick(model) is model


def test_other_models_are_called():
    class Mine(GPT):
        pass

    assert not knows(Mine(GPTConfig(V, T, 1, 1, 8)))
    assert not knows(FastGPT(FastGPTConfig(V, T, 1, 1, 8)))


def test_generation_decodes_and_its_tokens_can_be_trained_on(monkeypatch):
    calls, plain = [], Decoder.decode
    monkeypatch.setattr(Decoder, "decode", lambda *args: calls.append(1) or plain(*args))
    model = make().train()
    fast = quick(model)
    ids = generate(fast, torch.randint(V, (2, 3)), 12, seed=0)
    assert len(calls) == 12 - 3  # the prompt is read once, and twice a half of a full window
    assert torch.equal(ids, generate(fast, ids[:, :3], 12, seed=0, use_cache=False))
    assert torch.equal(ids, generate(model, ids[:, :3], 12, seed=0))
    assert len(calls) == 12 - 3
    assert model.training
    assert not ids.is_inference()
    model.loss(ids[:, :T], ids[:, 1 : T + 1]).backward()


def test_each_prompt_is_continued_as_it_would_be_alone():
    torch.manual_seed(0)
    model = GPT(GPTConfig(11, 16, n_layer=1, n_head=2, n_embd=16))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    prompts = [torch.tensor(ids) for ids in ([1, 2, 3], [4], [5, 6, 7], [8, 9], [0])]
    for options in ({}, {"temperature": 0.8, "top_k": 3}):
        for prompt, added in zip(
            prompts, continue_prompts(model, prompts, 6, **options), strict=True
        ):
            assert len(added) == 6
            if not options:  # greedy
                alone = generate(model, prompt, 6, temperature=0)
                assert torch.equal(torch.cat([prompt, added]), alone)
    assert continue_prompts(model, [], 6) == []
