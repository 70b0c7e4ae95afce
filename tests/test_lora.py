"""LoRA against Hugging Face's `peft`, and what an adapter must leave alone."""

import copy
import errno
import json
import os
import re
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import torch as safetensors

import llmkit
from llmkit import GPTConfig, TrainConfig, checkpoint
from llmkit.finetune import lora, pretrained
from llmkit.model import GPT
from llmkit.optim import configure_optimizers
from llmkit.speed import decoding

CONFIGS = {
    "GPT": GPTConfig(50, 16, n_layer=2, n_head=2, n_embd=24),
    "untied, rotary": GPTConfig(
        50, 16, n_layer=2, n_head=2, n_embd=24, position="rotary", bias=False, tie_weights=False
    ),
}
LAYERS = ("c_attn", "c_proj", "c_fc")
TINY = TrainConfig(steps=5, batch_size=4, learning_rate=0.02)


@pytest.fixture(params=CONFIGS)
def base(request) -> torch.nn.Module:
    torch.manual_seed(0)
    model = GPT(CONFIGS[request.param])
    with torch.no_grad():
        for weight in model.parameters():  # biases start at zero, which would hide much
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def adapted(model: torch.nn.Module, seed: int = 1, **options) -> torch.nn.Module:
    """The model with an adapter that changes its outputs."""
    lora.apply(model, **{"rank": 3, "alpha": 5, "targets": LAYERS} | options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in lora.adapters(model).values():
            layer.B.normal_(0, 0.3, generator=generator)
    return model


def one_sentence(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same_bits(a: dict, b: dict) -> bool:
    """Equal names and bits; an adapted layer's own weights count under the layer's name."""
    a, b = ({n.replace(".base.", "."): t for n, t in d.items()} for d in (a, b))
    return a.keys() == b.keys() and all(
        torch.equal(a[name].view(torch.int32), b[name].view(torch.int32)) for name in a
    )


def of_base(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p for n, p in weights(model).items() if not n.endswith((".A", ".B"))}


IDS = torch.randint(50, (3, 16), generator=torch.Generator().manual_seed(2))


# ------------------------------------------------------------------------------------ against peft


@pytest.mark.parametrize(
    "targets", [("c_attn",), LAYERS, ("h.1.attn.c_proj", "c_fc"), ("lm_head",)]
)
def test_outputs_and_gradients_are_those_of_peft(base, targets):
    peft = pytest.importorskip("peft")
    if targets == ("lm_head",) and base.lm_head.weight is base.wte.weight:
        pytest.skip("tied: refused")
    theirs = copy.deepcopy(base)
    ours = adapted(base, rank=3, alpha=5, targets=targets)
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=list(targets), lora_dropout=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.inject_adapter_in_model(config, theirs)
    pairs = {}
    for name, layer in lora.adapters(ours).items():
        other = theirs.get_submodule(name)
        pairs[name] = (layer, other.lora_A["default"].weight, other.lora_B["default"].weight)
        with torch.no_grad():
            pairs[name][1].copy_(layer.A)
            pairs[name][2].copy_(layer.B)
    wrapped = [n for n, m in theirs.named_modules() if hasattr(m, "lora_A")]
    assert sorted(pairs) == sorted(wrapped)  # the same layers
    chosen = {n for n, p in theirs.named_parameters() if p.requires_grad}
    assert len(chosen) == sum(p.requires_grad for p in ours.parameters()) == 2 * len(pairs)

    a, b = ours(IDS), theirs(IDS)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    for model in (ours, theirs):
        model.loss(IDS[:, :-1], IDS[:, 1:]).backward()
    for layer, A, B in pairs.values():
        assert layer.A.grad.abs().max() > 1e-6
        torch.testing.assert_close(layer.A.grad, A.grad, atol=1e-5, rtol=0)
        torch.testing.assert_close(layer.B.grad, B.grad, atol=1e-5, rtol=0)
    for name, (layer, *_) in pairs.items():
        delta = theirs.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(layer.update(), delta, atol=1e-5, rtol=0)


def test_a_layer_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    plain = torch.nn.Linear(7, 5)
    layer = lora.LoRALinear(plain, rank=2, alpha=6)
    assert (layer.A.shape, layer.B.shape, layer.rank) == ((2, 7), (5, 2), 2)
    assert layer.A.abs().max() <= 7**-0.5
    assert not layer.B.any()
    layer.B.data.normal_()
    x = torch.randn(4, 3, 7)
    W = plain.weight + 6 / 2 * layer.B @ layer.A
    torch.testing.assert_close(layer(x), F.linear(x, W, plain.bias))


def test_any_module_with_linear_layers_will_do():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    x = torch.randn(4, 7)
    before = model(x)
    adapted(model, rank=2, targets=("0", "2"))
    assert list(lora.adapters(model)) == ["0", "2"]
    assert lora.trainable(model) == (2 * (7 + 5) + 2 * (5 + 3), 40 + 18 + 40)
    expected = model.eval()(x)
    assert not torch.allclose(expected, before)
    torch.testing.assert_close(lora.merge(model)(x), expected)
    assert torch.equal(lora.remove(lora.unmerge(model))(x), before)


# --------------------------------------------------------------- what changes, and what does not


def test_at_first_the_outputs_are_the_base_s(base):
    before = base(IDS)
    assert lora.apply(base, 4, 8, LAYERS) is base
    assert torch.equal(base(IDS), before)


def test_training_changes_the_adapter_alone(base):
    original, ids = weights(base), IDS.flatten()
    lora.apply(base, 4, 8)
    first = weights(base)
    trained, total = lora.trainable(base)
    assert trained == sum(p.numel() for p in base.parameters() if p.requires_grad)
    assert total == base.num_parameters()
    assert trained == 2 * 4 * (24 + 72)  # two layers, 24 -> 72, of rank 4
    before = llmkit.evaluate(base, ids).loss
    config = TrainConfig(steps=30, batch_size=4, learning_rate=0.02, keep_best=True)
    llmkit.train(base, ids, ids, config)
    assert llmkit.evaluate(base, ids).loss < before
    assert same_bits(of_base(base), original)
    for name, weight in weights(base).items():
        assert name.endswith((".A", ".B")) != torch.equal(weight, first[name])


def test_the_optimizer_of_an_adapter_is_adamw(base):
    """Muon would make all directions of A and B equally strong; the point of LoRA is that few are,
    and peft's users train it with AdamW."""
    lora.apply(base, 4, 8)
    with pytest.raises(ValueError, match=r"here all of them are frozen .*: use optimizer='adamw'"):
        configure_optimizers(base, "muon")
    [optimizer] = configure_optimizers(base, "adamw")
    assert isinstance(optimizer, torch.optim.AdamW)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for layer in lora.adapters(base).values() for p in (layer.A, layer.B)}


def test_a_run_is_resumed_bit_for_bit(base, tmp_path):
    """From an adapter in its file and the run's state in another."""
    ids, config = IDS.flatten(), TrainConfig(steps=8, batch_size=4)
    torch.manual_seed(3)
    whole = lora.apply(copy.deepcopy(base), 4, 8, dropout=0.1)
    broken_off = copy.deepcopy(whole)
    llmkit.train(whole, ids, config=config)

    def stop(run):
        if run.step == 5:
            run.stop = "enough"
            torch.save(run.state_dict(), tmp_path / "state.pt")
            lora.save(tmp_path / "adapter", run.model)

    llmkit.train(broken_off, ids, config=config, callbacks=[stop])
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = lora.load(tmp_path / "adapter", base)
    llmkit.train(resumed, ids, config=config, resume=state)
    assert same_bits(weights(resumed), weights(whole))


def test_merged_equals_unmerged_and_the_base_comes_back_bit_for_bit(base):
    original = weights(base)
    plain = base(IDS)
    adapted(base)
    expected = base(IDS)
    assert (expected - plain).abs().max() > 0.1
    for _ in range(2):  # the second merge adds nothing
        lora.merge(base)
        torch.testing.assert_close(base(IDS), expected, atol=1e-5, rtol=0)
        assert not same_bits(of_base(base), original)
    for _ in range(2):
        lora.unmerge(base)
        assert same_bits(of_base(base), original)
    torch.testing.assert_close(base(IDS), expected, atol=0, rtol=0)
    lora.remove(base)
    assert same_bits(weights(base), original)
    assert torch.equal(base(IDS), plain)
    assert all(p.requires_grad for p in base.parameters())


def test_removed_while_merged_it_is_a_plain_model_with_the_adapter_in_it(base, tmp_path):
    adapted(base)
    expected = base(IDS)
    lora.remove(lora.merge(base))
    assert lora.adapters(base) == {}
    checkpoint.save(tmp_path / "run", base)
    loaded, _ = checkpoint.load(tmp_path / "run")
    torch.testing.assert_close(loaded(IDS), expected, atol=1e-5, rtol=0)


def test_a_merged_adapter_can_be_moved_to_another_dtype(base):
    adapted(base)
    lora.merge(base)
    base.double()
    expected = base(IDS)
    lora.unmerge(base)
    torch.testing.assert_close(base(IDS), expected, atol=1e-5, rtol=0)


def test_bfloat16_weights_get_an_adapter_of_their_kind(base):
    adapted(base.bfloat16())
    layer = next(iter(lora.adapters(base).values()))
    assert layer.A.dtype == layer.B.dtype == torch.bfloat16
    assert layer.update().dtype == torch.float32  # added up before it is rounded
    before = layer.base.weight.clone()
    lora.merge(base)
    exact = (before.float() + layer.update()).bfloat16()
    assert torch.equal(layer.base.weight, exact)


def test_dropout_acts_in_training_only(base):
    adapted(base, dropout=0.5)
    assert torch.equal(base(IDS), base(IDS))
    base.train()
    assert not torch.equal(base(IDS), base(IDS))
    quiet = base.eval()(IDS)
    for layer in lora.adapters(base).values():
        layer.p = 0.0
    assert torch.equal(base.train()(IDS), quiet)  # so none was drawn in eval mode


@pytest.mark.parametrize("merged", [False, True])
def test_generation_heeds_the_adapter(base, merged):
    plain = llmkit.generate(base, IDS[0, :3], 20, temperature=0)
    adapted(base, rank=4)
    slow = llmkit.generate(base, IDS[0, :3], 20, temperature=0, use_cache=False)
    if merged:
        lora.merge(base)
    assert torch.equal(llmkit.generate(base, IDS[0, :3], 20, temperature=0), slow)
    assert not torch.equal(slow, plain)
    if merged:
        lora.remove(base)
        assert torch.equal(llmkit.generate(base, IDS[0, :3], 20, temperature=0), slow)


def test_the_fast_decoder_takes_no_short_cut_past_an_adapter():
    model = GPT(CONFIGS["GPT"])
    assert decoding.knows(model)
    assert not decoding.knows(adapted(model))
    assert not decoding.knows(lora.merge(model))
    assert decoding.knows(lora.remove(model))


# ------------------------------------------------------------------------------------- in a file


def test_only_the_adapter_is_saved_and_comes_back(base, tmp_path):
    fresh = copy.deepcopy(base)
    adapted(base, dropout=0.1, targets=("c_attn", "h.1.attn.c_proj"))
    path = lora.save(tmp_path / "new" / "play.safetensors", base)
    trained, total = lora.trainable(base)
    assert 4 * trained < path.stat().st_size < 4 * trained + 2_000
    assert os.listdir(path.parent) == ["play.safetensors"]
    random = torch.get_rng_state()
    assert lora.load(path, fresh) is fresh
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(fresh(IDS), base(IDS))
    assert lora.trainable(fresh) == (trained, total)
    for layer in lora.adapters(fresh).values():
        assert (layer.rank, layer.alpha, layer.p) == (3, 5, 0.1)


@pytest.mark.parametrize("merged", [False, True])
def test_one_base_with_two_adapters(base, tmp_path, merged):
    original, outputs = weights(base), {}
    for seed, rank in ((1, 3), (2, 5)):
        outputs[seed] = adapted(base, seed=seed, rank=rank)(IDS)
        lora.save(tmp_path / f"{seed}.safetensors", base)
        lora.remove(base)
    for seed in (1, 2, 1):
        lora.load(tmp_path / f"{seed}.safetensors", base)
        assert torch.equal(base(IDS), outputs[seed])
        if merged:
            lora.merge(base)
    lora.unmerge(base)
    assert same_bits(of_base(base), original)


def test_a_merged_adapter_and_a_compiled_model_save_the_same(base, tmp_path):
    path = lora.save(tmp_path / "a", adapted(base))
    before = path.read_bytes()
    assert lora.save(path, lora.merge(base)).read_bytes() == before
    assert lora.save(path, torch.compile(base)).read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"n_embd": 32}, "n_embd 24, not 32"), ({"n_layer": 3}, "n_layer 2, not 3")],
)
def test_another_base_is_refused(changes, named, tmp_path):
    config = CONFIGS["GPT"]
    path = lora.save(tmp_path / "a", adapted(GPT(config)))
    other = GPT(GPTConfig(**(vars(config) | changes)))
    with pytest.raises(ValueError, match=named) as error:
        lora.load(path, other)
    assert "load it onto the model that it was trained on" in one_sentence(error)
    assert lora.adapters(other) == {}
    lora.load(path, GPT(GPTConfig(**(vars(config) | {"dropout": 0.2}))))  # no matter of shape

    class Other(GPT):
        pass

    with pytest.raises(ValueError, match="class GPT, not Other"):
        lora.load(path, Other(config))


def rewrite(path, change, seal: bool = True) -> None:
    """Change what a file says and its tensors, its checksum too: as another program might."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["llmkit"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    checksum = about.pop("checksum")
    change(about, tensors)
    about["checksum"] = lora._checksum(about, tensors) if seal else checksum
    safetensors.save_file(tensors, path, {"llmkit": json.dumps(about)})


A = "h.0.attn.c_attn.A"
WRONG = {
    "unknown layer": (lambda _, t: t.update({"h.9.attn.c_attn.A": t.pop(A)}), "see h.0"),
    "one side": (lambda _, t: t.pop(A), f"see {A}"),
    "no linear layer": (lambda _, t: t.update({"wte.A": t[A].clone()}), "see wte.A"),
    "a row that would be broadcast": (lambda _, t: t.update({A: t[A][:1]}), f"see {A}"),
    "a number": (lambda _, t: t.update({A: torch.tensor(1.0)}), f"see {A}"),
    "another rank": (lambda a, _: a.update(rank=2), "see h.0"),
    "no rank": (lambda a, _: a.pop("rank"), "is damaged"),
    "rank of a wrong type": (lambda a, _: a.update(rank=[3]), "rank must be"),
    "alpha of a wrong type": (lambda a, _: a.update(alpha="5"), "alpha must be"),
    "alpha 0": (lambda a, _: a.update(alpha=0), "alpha must be"),
    "dropout of a wrong type": (lambda a, _: a.update(dropout=None), "dropout must be"),
    "no base": (lambda a, _: a.update(base={}), "is for a base with class None, not GPT"),
    "a field too few": (lambda a, _: a["base"].pop("bias"), "with bias None, not True"),
    "a field too many": (lambda a, _: a["base"].update(width=8), "with width 8, not None"),
    "a base of a wrong type": (lambda a, _: a.update(base=[]), "is damaged"),
    "no tensors": (lambda _, t: t.clear(), "is damaged"),
    "NaN": (lambda _, t: t[A][0, 0].fill_(torch.nan), f"{A} in .* not finite"),
    "infinite": (lambda _, t: t[A][0, 0].fill_(torch.inf), f"{A} in .* not finite"),
    "tied": (
        lambda a, t: t.update({"lm_head.A": torch.ones(3, 24), "lm_head.B": torch.ones(50, 3)}),
        "lm_head shares its weights with wte",
    ),
}


@pytest.mark.parametrize("state", ["plain", "merged"])
@pytest.mark.parametrize("wrong", WRONG)
def test_an_adapter_that_does_not_fit_leaves_the_model_as_it_was(wrong, state, tmp_path):
    change, complaint = WRONG[wrong]
    path = lora.save(tmp_path / "a", adapted(GPT(CONFIGS["GPT"]), targets="c_attn"))
    rewrite(path, change)
    model = GPT(CONFIGS["GPT"])
    if state == "merged":
        lora.merge(adapted(model, seed=7, rank=2))
    before, random = weights(model), torch.get_rng_state()
    learning = {name: p.requires_grad for name, p in model.named_parameters()}
    modules = dict(model.named_modules())
    with pytest.raises(ValueError, match=complaint) as error:
        lora.load(path, model)
    assert one_sentence(error)
    assert str(path) in str(error.value)
    assert same_bits(weights(model), before)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == learning
    assert dict(model.named_modules()) == modules
    assert torch.equal(torch.get_rng_state(), random)
    if state == "merged":
        lora.unmerge(model)  # what was kept for it is there


@pytest.mark.parametrize("field", ["rank", "alpha", "dropout", "base"])
def test_the_checksum_covers_what_a_file_says(field, tmp_path):
    path = lora.save(tmp_path / "a", adapted(GPT(CONFIGS["GPT"])))
    changed = {"rank": 4, "alpha": 36, "dropout": 0.5, "base": {}}[field]
    rewrite(path, lambda about, _: about.update({field: changed}), seal=False)
    with pytest.raises(ValueError, match="is damaged or no adapter"):
        lora.load(path, GPT(CONFIGS["GPT"]))


def test_an_adapter_goes_to_the_layers_of_its_names_and_no_others(tmp_path):
    """A name may end another one."""
    model = torch.nn.ModuleDict({"c": torch.nn.Linear(4, 4), "d": torch.nn.Sequential()})
    model["d"].add_module("c", torch.nn.Linear(4, 4))
    plain = copy.deepcopy(model)
    lora.apply(model, 2, 4, "c")
    lora.remove(model)
    lora.apply(model, 2, 4, "d.c")
    lora.load(lora.save(tmp_path / "a", model), plain)
    assert list(lora.adapters(plain)) == ["d.c"]
    rewrite(
        tmp_path / "a", lambda _, t: t.update({n.removeprefix("d."): t.pop(n) for n in list(t)})
    )
    assert list(lora.adapters(lora.load(tmp_path / "a", plain))) == ["c"]


def test_a_compiled_model_is_adapted_as_the_plain_one(base, tmp_path):
    """Every function sees through torch.compile, and what was compiled is compiled anew."""
    original, plain = weights(base), base(IDS)
    path = lora.save(tmp_path / "a", adapted(copy.deepcopy(base), dropout=0.1))
    expected = lora.load(path, copy.deepcopy(base))(IDS)
    compiled = torch.compile(base, backend="eager")
    assert torch.equal(compiled(IDS), plain)
    for _ in range(2):  # onto a base, and onto one with an adapter
        assert lora.load(path, compiled) is compiled
        assert lora.adapters(compiled).keys() == lora.adapters(base).keys() != set()
        assert torch.equal(compiled(IDS), expected)
    assert lora.save(tmp_path / "b", compiled).read_bytes() == path.read_bytes()
    assert lora.merge(compiled) is compiled
    torch.testing.assert_close(compiled(IDS), expected, atol=1e-5, rtol=0)
    assert lora.unmerge(compiled) is compiled
    assert torch.equal(compiled(IDS), expected)
    assert lora.remove(compiled) is compiled
    assert torch.equal(compiled(IDS), plain)
    assert same_bits(weights(base), original)
    assert lora.apply(compiled, 2, 4, "h.0.attn.c_attn") is compiled
    assert list(lora.adapters(compiled)) == ["h.0.attn.c_attn"]
    assert torch.equal(compiled(IDS), plain)


def test_a_missing_cut_damaged_or_foreign_file_is_named(tmp_path):
    model = adapted(GPT(CONFIGS["GPT"]))
    path = lora.save(tmp_path / "a", model)
    expected, whole = model(IDS), path.read_bytes()
    contents = [whole[:size] for size in (0, 1, 8, len(whole) // 2, len(whole) - 1)]
    contents += [whole[:-1] + bytes([whole[-1] ^ 1])]  # a single bit
    contents += [b"[1]", safetensors.save({"x": torch.ones(2)})]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"/a is damaged or no adapter") as error:
            lora.load(path, model)
        assert one_sentence(error)
    path.write_bytes(whole.replace(b"llmkit adapter 2", b"llmkit adapter 3"))
    with pytest.raises(ValueError, match="is from another version of llmkit"):
        lora.load(path, model)
    with pytest.raises(FileNotFoundError, match=r"there is no adapter .*/none"):
        lora.load(tmp_path / "none", model)
    assert torch.equal(model(IDS), expected)  # the adapter it had


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_file(broken, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = lora.save(tmp_path / "a", adapted(GPT(CONFIGS["GPT"])))
    before = path.read_bytes()
    monkeypatch.setattr(os, broken, full)
    with pytest.raises(OSError, match=r"could be saved as .*/a .*No space left on device"):
        lora.save(path, adapted(GPT(CONFIGS["GPT"]), seed=9))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOTDIR])
@pytest.mark.parametrize("save", [lora.save, checkpoint.save, pretrained.save_gpt2])
def test_the_advice_fits_the_reason(save, number, tmp_path, monkeypatch):
    """A read-only disk refuses to remove what it refused to write."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    model = GPT(CONFIGS["GPT"])
    arguments = (tmp_path / "a", model)
    if save is lora.save:
        arguments = (tmp_path / "a", adapted(model))
    elif save is pretrained.save_gpt2:
        arguments = (model, tmp_path / "a")
    with monkeypatch.context() as patch:
        for name in ("write_bytes", "unlink"):
            patch.setattr(Path, name, refuse)
        with pytest.raises(OSError, match=re.escape(os.strerror(number))) as error:
            save(*arguments)
    told = one_sentence(error)
    assert str(tmp_path / "a") in told
    assert "choose another folder" in told
    assert ("disk space" in told) == (number == errno.ENOSPC)
    assert ("may write" in told) == (number in (errno.EROFS, errno.EACCES))


def test_what_the_file_says_can_be_read_by_others(tmp_path):
    from safetensors import safe_open

    path = lora.save(tmp_path / "a", adapted(GPT(CONFIGS["GPT"]), targets="c_attn"))
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["llmkit"])
        names = sorted(file.keys())
    assert (about["rank"], about["alpha"], about["base"]["class"]) == (3, 5, "GPT")
    assert names == [f"h.{n}.attn.c_attn.{side}" for n in (0, 1) for side in "AB"]


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"targets": "q_proj"}, "'q_proj'; there are attn.c_attn, attn.c_proj, lm_head, mlp.c_fc"),
        ({"targets": ("c_attn", "wte")}, "no linear layer is called 'wte'"),
        ({"targets": "_attn"}, "no linear layer is called '_attn'"),  # whole names only
        ({"targets": ()}, "no linear layer is called ''"),
        ({"targets": "lm_head"}, "lm_head shares its weights with wte"),
        ({"rank": 0}, "h.0.attn.c_attn's rank must be from 1 to 24, not 0"),
        ({"rank": 25}, "rank must be .* not 25"),
        ({"rank": 2.0}, "rank must be .* not 2.0"),
        ({"alpha": 0}, "alpha must be above 0"),
        ({"alpha": float("nan")}, "alpha must be"),
        ({"alpha": float("inf")}, "alpha must be"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_what_cannot_work_is_refused_and_changes_nothing(options, complaint):
    model = GPT(CONFIGS["GPT"])
    with pytest.raises(ValueError, match=complaint) as error:
        lora.apply(model, **options)
    assert one_sentence(error)
    assert lora.adapters(model) == {}
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_with_an_adapter_and_one_without():
    model = GPT(CONFIGS["GPT"])
    for function in (lora.merge, lora.unmerge, lora.remove, lambda m: lora.save("x", m)):
        with pytest.raises(ValueError, match="has no adapter: call lora"):
            function(model)
    lora.apply(model)
    with pytest.raises(ValueError, match=r"adapter already: call lora\.remove"):
        lora.apply(model)


def test_training_a_merged_adapter_says_unmerge():
    model = lora.merge(adapted(GPT(CONFIGS["GPT"])))
    with pytest.raises(ValueError, match=r"call lora\.unmerge"):
        llmkit.train(model, IDS.flatten(), config=TINY)
    lora.unmerge(model)
    llmkit.train(model, IDS.flatten(), config=TINY)
