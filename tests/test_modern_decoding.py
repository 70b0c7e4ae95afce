"""`modern.decoding`: a token through the layers' functions is a token through the model, and many
texts are drawn together."""

from __future__ import annotations

import pytest
import torch
from test_modern import SHAPES, small, some_ids

import llmkit
from llmkit.deploy.batch import Batch
from llmkit.finetune import lora
from llmkit.modern import quick
from llmkit.modern.decoding import ModernDecoder
from llmkit.speed.decoding import Decoder, Slots


@pytest.mark.parametrize("amd", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_a_decoder_gives_what_the_model_gives(name, amd, monkeypatch):
    monkeypatch.setattr("llmkit.speed.cpu.is_amd", lambda: amd)
    monkeypatch.setattr("llmkit.speed.cpu.LARGE", 1)
    model = small(**SHAPES[name])
    ids = some_ids(20)
    with torch.no_grad():
        expected, cache, decode = model(ids), model.new_cache(2), quick(model)
        assert type(decode) is ModernDecoder
        decode(ids[:, :3], cache=cache)
        for t in range(3, 20):
            logits = decode(ids[:, t : t + 1], cache, last_only=True)
            torch.testing.assert_close(
                logits[:, 0].clone(), expected[:, t], atol=2e-5, rtol=0, msg=f"position {t}"
            )
        assert cache[0].length == 20


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_text_past_every_window(name, monkeypatch):
    """Past the sliding window of 7, and past block_size, 24, thrice."""
    calls, plain = [], Decoder.decode
    monkeypatch.setattr(Decoder, "decode", lambda *args: calls.append(1) or plain(*args))
    model = small(**SHAPES[name], block_size=24)
    for prompt in (some_ids(5, 1)[0], some_ids(5, 3)):
        expected = llmkit.generate(model, prompt, 60, 1.0, seed=3)
        assert not calls
        assert torch.equal(llmkit.generate(quick(model), prompt, 60, 1.0, seed=3), expected)
        assert len(calls) > 50
        calls.clear()


def test_what_is_not_plain_is_left_as_it_is():
    assert type(quick(llmkit.GPT(llmkit.GPTConfig(9, 8, 1, 2, 8)))) is Decoder
    adapted = lora.apply(small(), rank=2)
    assert quick(adapted) is adapted
    hooked = small()
    hooked.h[1].mlp.register_forward_hook(lambda *_: None)
    assert quick(hooked) is hooked


def test_in_half_precision_it_draws_what_the_model_draws():
    model = small(n_kv_head=2).to(torch.bfloat16)
    ids, cache = some_ids(20), model.new_cache(2)
    decode = quick(model)
    with torch.no_grad():
        expected = model(ids).float()
        decode(ids[:, :3], cache=cache)
        for t in range(3, 20):
            logits = decode(ids[:, t : t + 1], cache)
            assert logits.dtype == torch.bfloat16
            off = (logits[:, 0].float() - expected[:, t]).abs().max()
            assert off < 0.05 * expected.abs().max()


@pytest.mark.parametrize("name", SHAPES)
def test_texts_drawn_together_are_those_drawn_alone(name):
    """Texts of different lengths that join and leave, past block_size; with a sliding window or
    experts each in its turn, else in slots."""
    model = small(**SHAPES[name], block_size=24)
    batch = Batch(model, 3)
    assert (batch._slots is None) == (name in ("window", "narrow window", "experts"))
    prompts = [some_ids(T, 1)[0].tolist() for T in (3, 9, 17)]
    rows = {batch.join(prompt, seed=b): b for b, prompt in enumerate(prompts)}
    texts: list[list[int]] = [[], [], []]
    while rows:
        for row, token in batch.step():
            texts[rows[row]].append(token)
            if len(texts[rows[row]]) == 30:
                batch.leave(row)
                del rows[row]
    for b, prompt in enumerate(prompts):
        alone = llmkit.generate(model, torch.tensor(prompt), 30, seed=b)
        assert texts[b] == alone[len(prompt) :].tolist()


def test_slots_take_memory_for_the_heads_of_keys_alone():
    slots = Slots(quick(small(n_kv_head=2)), 3)
    assert slots.keys[0].shape == (3, 2, 64, 6)


def test_slots_grow_with_their_texts(monkeypatch):
    """From 32 positions to 224: as a slot's text grows, and as a long one comes beside it."""
    monkeypatch.setattr("llmkit.speed.decoding.ROOM", 32)
    model = small(n_kv_head=2, block_size=200)
    slots = Slots(quick(model), 2)
    texts = {0: some_ids(20, 1)[0].tolist(), 1: some_ids(90, 1)[0].tolist()}
    rooms = []
    with torch.no_grad():
        for step in range(100):
            begun = [0] if step < 30 else [0, 1]
            if step in (0, 30):
                scores = {begun[-1]: slots.read(begun[-1], texts[begun[-1]])[0]}
            else:
                rows = slots.step({slot: texts[slot][-1] for slot in begun})
                scores = dict(zip(begun, rows, strict=True))
            for slot, found in scores.items():
                expected = model(torch.tensor([texts[slot]]), last_only=True)[0, -1]
                torch.testing.assert_close(found.clone(), expected, atol=2e-5, rtol=0)
                texts[slot].append(int(expected.argmax()))
            rooms.append(slots.keys[0].size(2))
    assert sorted(set(rooms)) == [32, 64, 128, 224]
