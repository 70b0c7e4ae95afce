"""`speed.decoding`: a token through the layers' functions is a token through the model."""

import itertools

import pytest
import torch
from torch import nn

from llmkit import GPT, FastGPT, FastGPTConfig, GPTConfig, generate
from llmkit.deploy.int8 import to_int8
from llmkit.speed.cpu import is_amd
from llmkit.speed.decoding import Decoder, Slots, continue_prompts, knows, quick

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


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_texts_in_slots_are_scored_as_the_model_scores_each(variant):
    """Of different lengths; one comes later, one moves, one begins anew where another was."""
    model = make(**variant, block_size=2 * T)
    slots, texts = Slots(Decoder(model), 4), {}
    for part in (*slots.keys, *slots.values):
        assert not part.any()  # a weight of 0 times what may be no number is no number

    def begin(slot, length):
        texts[slot] = torch.randint(V, (length,)).tolist()
        check({slot: 0}, slots.read(slot, texts[slot]))

    def check(places, scores):
        assert scores.shape == (len(places), V)
        for slot, found in zip(places, scores, strict=True):
            with torch.no_grad():
                expected = model(torch.tensor([texts[slot]]))[0, -1]
            torch.testing.assert_close(found.clone(), expected, atol=1e-5, rtol=1e-5)

    def go(*places):
        new = {slot: int(torch.randint(V, ())) for slot in places}
        for slot, token in new.items():
            texts[slot].append(token)
        check(new, slots.step(new))

    begin(0, 3)
    go(0)
    begin(2, 1)
    go(2, 0)  # with a gap between them, in any order
    begin(1, 5)
    go(0, 1, 2)
    slots.move(2, to=0)
    texts[0] = texts.pop(2)
    go(0, 1)
    begin(3, 2 * T)
    begin(2, 2)
    for _ in range(2):
        go(0, 1, 2)
    begin(3, 4)
    go(0, 2, 3, 1)


@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("whole", [True, False])
def test_scores_do_not_depend_on_the_company(position, whole):
    """To the last bit, as measured on AMD; on other processors within rounding."""
    config = GPTConfig(65, 80, 2, 4, 64, position=position)
    torch.manual_seed(0)
    model = GPT(config).eval()
    decoder = quick(model if whole else to_int8(model))
    assert isinstance(decoder, Decoder)
    mine = torch.randint(65, (70,)).tolist()

    def scores(company, slot):
        slots = Slots(decoder, 16)
        found = [slots.read(slot, mine[:10])]
        for other in set(range(company)) - {slot}:
            slots.read(other, torch.randint(65, (1 + 5 * other % 60,)).tolist())
        for t in range(10, 30):
            new = {s: t if s != slot else mine[t] for s in range(company)}
            found.append(slots.step(new)[slot, None])
        return torch.cat(found)

    alone = scores(1, 0)
    for company, slot in ((2, 1), (3, 0), (4, 2), (5, 4), (11, 7), (16, 15)):
        if is_amd():
            assert torch.equal(scores(company, slot), alone), company
        torch.testing.assert_close(scores(company, slot), alone, atol=1e-5, rtol=1e-5)
