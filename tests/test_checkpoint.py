"""Checkpoints: exact round trips, damaged and foreign folders, full disks, and real kills."""

import errno
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from llmkit import checkpoint
from llmkit.fast import FastGPT, FastGPTConfig
from llmkit.model import GPT, GPTConfig
from llmkit.tokenizer import CharTokenizer, WordTokenizer

TINY = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8)
RELAXED = settings(  # a state may be saved over the one before it, in the same folder
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
EVERY_FILE = {
    "config.json",
    "model.safetensors",
    "state.json",
    "state.safetensors",
    "tokenizer.json",
}


def step_model(step: int) -> GPT:
    """A model that shows which save it came from: every weight is the number of the step."""
    model = GPT(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(step)
    return model


def save_step(folder, step: int) -> None:
    state = {"step": step, "moments": {0: torch.full((50,), float(step))}}
    checkpoint.save(folder, step_model(step), CharTokenizer("ab"), state)


def saved_step(folder) -> int:
    """The step that the checkpoint holds; fails if its parts come from different steps."""
    (model, tokenizer), state = checkpoint.load(folder), checkpoint.load_state(folder)
    steps = {x for weight in model.parameters() for x in weight.flatten().tolist()}
    steps |= {float(state["step"]), *state["moments"][0].tolist()}
    assert len(steps) == 1
    assert tokenizer.vocab_size == 2
    return int(steps.pop())


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below the folder with its content, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def one_sentence(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400 + 2 * text.count("/")
    assert not text.endswith(": None")
    return text


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(request, monkeypatch):
    """A killed process, unlike a power cut, does not lose what it wrote; the slow tests do wait."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder that holds the checkpoint of step 1, with all five files."""
    save_step(tmp_path / "run", 1)
    assert set(tree(tmp_path / "run")) == EVERY_FILE
    return tmp_path / "run"


# Round trips of models


@pytest.mark.parametrize(
    "model",
    [
        GPT(TINY),
        GPT(GPTConfig(7, 5, 1, 2, 8, tie_weights=False, bias=False, position="sinusoidal")),
        GPT(GPTConfig(7, 5, 1, 2, 8, norm_first=False, activation="relu", position="rotary")),
        FastGPT(FastGPTConfig(7, 8, 2, 2, 8, bigram_rows=30, trigram_rows=50)),
        FastGPT(FastGPTConfig(7, 8, 2, 2, 8, bigram_rows=0, trigram_rows=0)),
    ],
    ids=["gpt", "untied", "post-norm", "fast", "fast-without-tables"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_model_comes_back_exactly(model, dtype, tmp_path):
    model = deepcopy(model).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    assert checkpoint.save(tmp_path / "deep" / "run", model) == tmp_path / "deep" / "run"
    loaded, tokenizer = checkpoint.load(str(tmp_path / "deep" / "run"))
    assert tokenizer is None
    assert checkpoint.load_state(tmp_path / "deep" / "run") is None
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    expected, found = dict(model.named_parameters()), dict(loaded.named_parameters())
    assert list(found) == list(expected)
    for name, parameter in expected.items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name], parameter), name
        assert found[name].requires_grad
    for name, buffer in model.named_buffers():
        assert torch.equal(dict(loaded.named_buffers())[name], buffer), name
    ids = torch.randint(0, 7, (2, 5))
    assert torch.equal(loaded(ids), model.eval()(ids))


def test_it_comes_back_in_eval_mode_and_is_saved_as_it_is(tmp_path):
    model = GPT(GPTConfig(7, 5, 1, 2, 8, dropout=0.5)).train()
    checkpoint.save(tmp_path / "run", model)
    assert model.training
    loaded, _ = checkpoint.load(tmp_path / "run")
    assert not any(module.training for module in loaded.modules())
    assert checkpoint.load(tmp_path / "run", device=torch.device("meta"))[0].wte.weight.is_meta


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_between_a_gpu_and_a_cpu(tmp_path):
    model = GPT(TINY).cuda().bfloat16()
    state = {"there": torch.arange(6.0, device="cuda").view(2, 3).T, "here": torch.ones(2)}
    checkpoint.save(tmp_path / "run", model, state=state)
    loaded, _ = checkpoint.load(tmp_path / "run", device="cuda")
    assert loaded.lm_head.weight is loaded.wte.weight
    for weight, expected in zip(loaded.parameters(), model.parameters(), strict=True):
        assert weight.is_cuda
        assert torch.equal(weight, expected)
    assert_same(checkpoint.load_state(tmp_path / "run")["there"], state["there"].cpu())
    assert not next(checkpoint.load(tmp_path / "run")[0].parameters()).is_cuda


def test_the_default_device_does_not_matter(folder):
    with torch.device("meta"):
        assert saved_step(folder) == 1
        checkpoint.save(folder, MODEL, state=torch.ones(2, device="cpu"))
        assert torch.equal(checkpoint.load_state(folder).cpu(), torch.ones(2, device="cpu"))


def test_mixed_dtypes_are_kept(tmp_path):
    model = GPT(TINY)
    model.h[1].mlp.bfloat16()
    checkpoint.save(tmp_path / "run", model)
    loaded, _ = checkpoint.load(tmp_path / "run")
    expected = {name: weight.dtype for name, weight in model.named_parameters()}
    assert {name: weight.dtype for name, weight in loaded.named_parameters()} == expected


def test_tied_weights_are_stored_once_and_tied_again(tmp_path):
    model = GPT(TINY)
    checkpoint.save(tmp_path / "run", model)
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as file:
        assert "wte.weight" in file.keys()  # noqa: SIM118 (safe_open has no other way)
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
        stored = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert stored == model.num_parameters()
    loaded, _ = checkpoint.load(tmp_path / "run")
    assert loaded.lm_head.weight is loaded.wte.weight
    assert loaded.num_parameters() == model.num_parameters()


def test_the_loaded_model_lives_on_without_the_files(folder):
    model, _ = checkpoint.load(folder)
    state = checkpoint.load_state(folder)
    for path in folder.glob("*.safetensors"):  # a tensor still mapped onto the file would change
        path.write_bytes(bytes(path.stat().st_size))
    assert (model.wte.weight == 1).all()
    assert (state["moments"][0] == 1).all()


def test_a_compiled_model_is_saved_as_the_model_in_it(tmp_path):
    model = GPT(TINY)
    checkpoint.save(tmp_path / "run", torch.compile(model))
    loaded, _ = checkpoint.load(tmp_path / "run")
    assert torch.equal(loaded.wte.weight, model.wte.weight)


def test_neither_saving_nor_loading_moves_the_seed(tmp_path):
    model, _ = GPT(TINY), torch.manual_seed(0)
    before = torch.get_rng_state()
    checkpoint.save(tmp_path / "run", model)
    checkpoint.load(tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "tokenizer",
    [CharTokenizer("a\n😀é", unknown="?"), WordTokenizer.from_text("to be or not")],
    ids=["char", "word"],
)
def test_the_tokenizer_comes_back(tokenizer, tmp_path):
    checkpoint.save(tmp_path / "run", GPT(TINY), tokenizer)
    _, loaded = checkpoint.load(tmp_path / "run")
    assert type(loaded) is type(tokenizer)
    assert loaded.vocab_size == tokenizer.vocab_size
    assert loaded.decode(range(loaded.vocab_size)) == tokenizer.decode(range(tokenizer.vocab_size))


def test_a_smaller_checkpoint_leaves_nothing_of_the_larger_one(folder):
    checkpoint.save(folder, step_model(2))
    assert set(tree(folder)) == {"config.json", "model.safetensors"}
    assert checkpoint.load(folder)[1] is None
    assert checkpoint.load_state(folder) is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_files_can_be_read_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        save_step(tmp_path / "run", 1)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()} == {0o640}
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o750


def test_other_models_are_refused(tmp_path):
    @dataclass
    class Config:
        vocab_size: int = 3

    class Stranger(torch.nn.Linear):
        config = Config()

    Stranger.__name__ = "GPT"
    for model in (torch.nn.Linear(2, 2), Stranger(2, 2)):
        with pytest.raises(TypeError, match="GPT or FastGPT"):
            checkpoint.save(tmp_path / "run", model)
    assert tree(tmp_path) == {}


def test_a_model_that_its_config_does_not_describe_is_refused(tmp_path):
    wider, untied, more = GPT(TINY), GPT(TINY), GPT(TINY)
    wider.h[0].mlp.c_fc = torch.nn.Linear(8, 9)
    untied.lm_head.weight = torch.nn.Parameter(untied.wte.weight.detach().clone())
    more.adapter = torch.nn.Linear(2, 2)
    for model, name in ((wider, "h.0.mlp.c_fc"), (untied, "lm_head.weight"), (more, "adapter")):
        with pytest.raises(ValueError, match=name):
            checkpoint.save(tmp_path / "run", model)
    assert tree(tmp_path) == {}


# Round trips of states

DTYPES = [  # all but the deprecated quantized ones and those of less than a byte
    dtype
    for dtype in sorted({d for d in vars(torch).values() if isinstance(d, torch.dtype)}, key=str)
    if not re.match(r"torch\.(q|bits|u?int[1-7]$)", str(dtype))
]


def raw(tensor: torch.Tensor) -> bytes:
    return bytes(
        tensor.detach()
        .clone(memory_format=torch.contiguous_format)
        .view(-1)
        .view(torch.uint8)
        .tolist()
    )


def assert_same(a, b) -> None:
    """Equal down to types, the order of dicts, the bits of floats and tensors."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert raw(a) == raw(b)
    elif isinstance(a, dict):
        assert [(type(k), k) for k in a] == [(type(k), k) for k in b]
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert repr(a) == repr(b)  # nan is nan, -0.0 is not 0.0


@st.composite
def tensors(draw) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    size = torch.Size(shape).numel() * dtype.itemsize
    data = bytearray(draw(st.binary(min_size=size, max_size=size)))
    if dtype == torch.bool:
        data = bytearray(byte % 2 for byte in data)
    flat = torch.frombuffer(data, dtype=torch.uint8) if size else torch.empty(0, dtype=torch.uint8)
    tensor = flat.view(dtype).view(shape)
    view = draw(st.sampled_from(["whole", "transposed", "every second", "expanded"]))
    if view == "transposed":
        return tensor.T if tensor.dim() == 2 else tensor.movedim(0, -1) if shape else tensor
    if view == "every second" and shape:
        return tensor[::2]
    return tensor.expand(2, *shape) if view == "expanded" else tensor


texts = st.text(st.characters(exclude_categories=()), max_size=8)  # half surrogate pairs too
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts | tensors()
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(texts | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
).filter(lambda state: state is not None)

MODEL = step_model(0)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@RELAXED
@given(states)
def test_any_state_comes_back(tmp_path, state):
    checkpoint.save(tmp_path / "run", MODEL, state=state)
    assert_same(checkpoint.load_state(tmp_path / "run"), state)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_every_dtype_comes_back(tmp_path):
    assert len(DTYPES) >= 20
    numbers = torch.arange(48, dtype=torch.uint8)
    state = [(numbers % 2 if dtype == torch.bool else numbers).clone() for dtype in DTYPES]
    state = [t.view(d) for t, d in zip(state, DTYPES, strict=True)]
    checkpoint.save(tmp_path / "run", MODEL, state=state)
    assert_same(checkpoint.load_state(tmp_path / "run"), state)


def test_views_of_one_memory_come_back_with_their_values(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    z = torch.tensor([1 + 2j, 3 - 4j])
    state = {
        "base": base,
        "again": base,
        "row": base[1],
        "column": base[:, 1],
        "transposed": base.T,
        "conjugate": z.conj(),
        "imaginary": z.conj().imag,  # a view with the negative bit
        "scalar": base[2, 3],
    }
    checkpoint.save(tmp_path / "run", MODEL, state=state)
    loaded = checkpoint.load_state(tmp_path / "run")
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor), name
        assert loaded[name].shape == tensor.shape
    loaded["base"].zero_()  # on its own, as the docstring says
    assert torch.equal(loaded["row"], base[1])


def test_keys_that_look_alike_stay_apart(tmp_path):
    state = {0: torch.zeros(1), "0": torch.ones(1), "[0]": 2, "a": {"'b'": torch.full((1,), 3.0)}}
    state["a']['b"] = torch.full((1,), 4.0)
    checkpoint.save(tmp_path / "run", MODEL, state=state)
    assert_same(checkpoint.load_state(tmp_path / "run"), state)


def test_kin_of_plain_types_come_back_plain(tmp_path):
    state = {"weights": GPT(TINY).state_dict(), "parameter": torch.nn.Parameter(torch.ones(2))}
    assert type(state["weights"]) is OrderedDict
    checkpoint.save(tmp_path / "run", MODEL, state=state)
    loaded = checkpoint.load_state(tmp_path / "run")
    assert_same(loaded["weights"], dict(state["weights"]))
    assert type(loaded["parameter"]) is torch.Tensor
    assert not loaded["parameter"].requires_grad


def test_an_optimizer_goes_on_as_if_nothing_had_happened(tmp_path):
    def run(model, optimizer, steps):
        generator = torch.Generator().manual_seed(1)
        for _ in range(steps):
            ids = torch.randint(0, 11, (4, 8), generator=generator)
            optimizer.zero_grad()
            model.loss(ids, ids).backward()
            optimizer.step()

    def adam(model):
        return torch.optim.AdamW(model.parameters(), lr=1e-2, fused=False)

    model = GPT(TINY)
    optimizer = adam(model)
    run(model, optimizer, 3)
    state = {"optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "step": 3}
    checkpoint.save(tmp_path / "run", model, state=state)
    again, _ = checkpoint.load(tmp_path / "run")
    state = checkpoint.load_state(tmp_path / "run")
    resumed = adam(again)
    resumed.load_state_dict(state["optimizer"])
    run(model, optimizer, 3)
    run(again, resumed, 3)
    for name, weight in model.named_parameters():
        assert torch.equal(dict(again.named_parameters())[name], weight), name
    assert torch.equal(torch.get_rng_state(), state["rng"])


class Number(float):
    pass


@pytest.mark.parametrize(
    ("state", "path"),
    [
        (object(), "state is a object"),
        ({"a": [1, {2, 3}]}, "state['a'][1] is a set"),
        ({"a": {7: b"bytes"}}, "state['a'][7] is a bytes"),
        (({"f": print},), "state[0]['f'] is a builtin_function_or_method"),
        ({"x": Number(1)}, "state['x'] is a Number"),
        ({"x": [1, signal.SIGKILL]}, "state['x'][1] is a Signals"),
        ({"x": torch.float32}, "state['x'] is a dtype"),
        ({"x": {"deep": {(1, 2): 3}}}, "state['x']['deep'] is a dict"),
        ({"x": {True: 3}}, "state['x'] is a dict"),
        ({"x": torch.eye(2).to_sparse()}, "state['x'] is a Tensor"),
        ({"x": torch.ones(2, device="meta")}, "state['x'] is a Tensor"),
    ],
)
def test_what_a_state_cannot_hold_is_named(state, path, folder):
    before = tree(folder.parent)
    with pytest.raises(TypeError) as error:
        checkpoint.save(folder, MODEL, state=state)
    assert one_sentence(error).startswith(path)
    assert tree(folder.parent) == before


# No pickle


def test_the_files_are_json_and_safetensors_and_are_read_without_pickle(folder, monkeypatch):
    for path in folder.iterdir():
        _ = json.loads(path.read_bytes()) if path.suffix == ".json" else load_file(path)
    strict = [json.loads(p.read_text(), parse_constant=pytest.fail) for p in folder.glob("*.json")]
    assert strict  # standard JSON: other programs read it too

    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    for owner, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
    ):
        monkeypatch.setattr(owner, name, refuse)
    assert saved_step(folder) == 1


class Trap:
    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("name", sorted(EVERY_FILE))
def test_a_pickle_in_place_of_a_file_is_refused_and_not_run(name, folder):
    trap = Trap()
    trap.path = str(folder / "sprung")
    if name.endswith("json"):
        (folder / name).write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, folder / name)
    with pytest.raises(ValueError, match=name):
        checkpoint.load_state(folder) if name.startswith("state") else checkpoint.load(folder)
    assert not (folder / "sprung").exists()


# Bad folders


def load_both(folder):
    return checkpoint.load(folder), checkpoint.load_state(folder)


def test_a_missing_folder_names_the_closest_one(folder):
    for function in (checkpoint.load, checkpoint.load_state):
        with pytest.raises(FileNotFoundError) as error:
            function(folder.parent / "rum")
        assert one_sentence(error).endswith("rum: did you mean run?")
    for name in ("zzzzzz", "no/such/parent"):
        with pytest.raises(FileNotFoundError, match="save one there first"):
            checkpoint.load(folder.parent / name)
    (folder.parent / "empty").mkdir()
    for name in ("empty", "run/config.json"):
        with pytest.raises(FileNotFoundError, match="no checkpoint in"):
            checkpoint.load(folder.parent / name)


@pytest.mark.parametrize("name", sorted(EVERY_FILE))
def test_a_missing_file_is_named(name, folder):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_both(folder)
    assert str(folder / name) in one_sentence(error)


@pytest.mark.parametrize("name", sorted(EVERY_FILE))
def test_a_truncated_file_is_named(name, folder):
    whole = (folder / name).read_bytes().rstrip()
    for size in sorted({0, 1, 7, 8, 9, 50, len(whole) // 2, len(whole) - 1}):
        (folder / name).write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"damaged|not a whole") as error:
            load_both(folder)
        assert str(folder / name) in one_sentence(error)


@pytest.mark.parametrize("name", sorted(EVERY_FILE))
@settings(RELAXED, max_examples=40)
@given(data=st.data())
def test_a_scrambled_file_is_an_error_or_is_read_never_a_crash(name, folder, data):
    whole = (folder.parent / name).read_bytes() if (folder.parent / name).exists() else None
    if whole is None:
        whole = (folder / name).read_bytes()
        (folder.parent / name).write_bytes(whole)
    if data.draw(st.booleans()):
        position = data.draw(st.integers(0, len(whole) - 1))
        byte = data.draw(st.integers(0, 255))
        damaged = whole[:position] + bytes([byte]) + whole[position + 1 :]
    else:
        damaged = data.draw(st.binary(max_size=20))
    (folder / name).write_bytes(damaged)
    try:
        load_both(folder)
    except (ValueError, FileNotFoundError) as error:
        assert str(folder) in str(error)  # noqa: PT017 (no error is fine as well)


@pytest.mark.parametrize("key", ["format", "version", "class", "config", "files"])
@pytest.mark.parametrize("value", ["gone", None, 3, "x", {"a": 1}])
def test_a_config_without_its_parts_is_named(key, value, folder):
    path = folder / "config.json"
    header = json.loads(path.read_text())
    header[key] = value
    if value == "gone":
        del header[key]
    path.write_text(json.dumps(header))
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load_both(folder)
    assert str(path) in one_sentence(error)


HUGGING_FACE = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 768}


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("content", [HUGGING_FACE, [1, 2], "text", None, {}])
def test_a_foreign_config_is_named(content, folder):
    (folder / "config.json").write_text(json.dumps(content))
    for function in (checkpoint.load, checkpoint.load_state):
        with pytest.raises(ValueError, match="not written by llmkit") as error:
            function(folder)
        assert str(folder / "config.json") in one_sentence(error)


@pytest.mark.parametrize("content", [{"version": "1.0", "model": {"type": "BPE"}}, [], {"kind": 3}])
def test_a_foreign_tokenizer_is_named(content, folder):
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"tokenizer\.json") as error:
        checkpoint.load(folder)
    one_sentence(error)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"dict": 3},
        {"dict": [[[1], 2]]},
        {"set": []},
        {"float": "one"},
        {"tensor": "nowhere", "dtype": "float32", "shape": []},
        {"tensor": "state['moments'][0]", "dtype": "load", "shape": []},
        {"tensor": "state['moments'][0]", "dtype": "float33", "shape": []},
        {"tensor": "state['moments'][0]", "dtype": "float32", "shape": [51]},
        {"tensor": "state['moments'][0]"},
        {"list": None},
    ],
)
def test_a_foreign_state_is_named(content, folder):
    (folder / "state.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"state\.json is damaged"):
        checkpoint.load_state(folder)
    checkpoint.load(folder)  # the model needs no state


@pytest.mark.parametrize("changes", [{"version": 2}, {"version": "x"}, {"class": "HyperGPT"}])
def test_a_newer_format_says_upgrade(changes, folder):
    edit(folder / "config.json", **changes)
    with pytest.raises(ValueError, match="upgrade llmkit") as error:
        checkpoint.load(folder)
    assert str(folder / "config.json") in one_sentence(error)
    before = tree(folder)
    with pytest.raises(ValueError, match="upgrade llmkit"):
        save_step(folder, 2)
    assert tree(folder) == before


@pytest.mark.parametrize(
    "config",
    [
        {"vocab_size": 11},
        {"vocab_size": 11, "block_size": 8, "flux_capacitor": True},
        {"vocab_size": 11, "block_size": 8, "n_embd": 9},
        {"vocab_size": "eleven", "block_size": 8},
        {"vocab_size": 10**15, "block_size": 8},  # more than any memory
        [],
        None,
    ],
)
def test_an_impossible_config_is_named(config, folder):
    edit(folder / "config.json", config=config)
    with pytest.raises(ValueError, match=r"config\.json makes no GPT") as error:
        checkpoint.load(folder)
    assert str(folder) in one_sentence(error)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop("h.1.ln_2.bias"), "h.1.ln_2.bias should be float(8,), not absent"),
        (lambda t: t.update(extra=torch.ones(2)), "extra should be absent, not float(2,)"),
        (
            lambda t: t.update({"wte.weight": torch.ones(8, 11)}),
            "wte.weight should be float(11, 8)",
        ),
        (
            lambda t: t.update({"ln_f.bias": torch.ones(8, dtype=torch.int64)}),
            "ln_f.bias should be float(8,), not (8,)",
        ),
        (lambda t: t.clear(), "should be float"),
    ],
    ids=["missing", "extra", "shape", "kind", "none"],
)
def test_weights_that_do_not_fit_are_named(change, complaint, folder):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit") as error:
        checkpoint.load(folder)
    assert complaint in one_sentence(error)


# What saving must never delete


def plant(folder: Path, kind: str) -> None:
    if kind == "a file more":
        (folder / "notes.txt").write_text("mine")
    elif kind == "a folder of a known name":
        (folder / "state.json").unlink()
        (folder / "state.json").mkdir()
        (folder / "state.json" / "notes.txt").write_text("mine")
    elif kind == "a Hugging Face model":
        (folder / "config.json").write_text(json.dumps(HUGGING_FACE))
    elif kind == "no config":
        (folder / "config.json").unlink()
    elif kind == "files where the earlier checkpoint goes":
        (folder.parent / ".run.previous").mkdir()
        (folder.parent / ".run.previous" / "notes.txt").write_text("mine")
    elif kind == "a file of that name":
        shutil.rmtree(folder)
        folder.write_text("mine")


@pytest.mark.parametrize(
    "kind",
    [
        "a file more",
        "a folder of a known name",
        "a Hugging Face model",
        "no config",
        "files where the earlier checkpoint goes",
        "a file of that name",
    ],
)
def test_a_folder_with_anything_else_in_it_is_left_alone(kind, folder):
    plant(folder, kind)
    before = tree(folder.parent)
    with pytest.raises((ValueError, FileNotFoundError), match="choose another folder") as error:
        save_step(folder, 2)
    assert str(folder.parent) in one_sentence(error)
    assert tree(folder.parent) == before


def test_the_current_folder_is_not_renamed_away(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for place in (".", "..", "/"):
        with pytest.raises(ValueError, match="choose another folder"):
            save_step(place, 1)
    save_step("run", 1)  # relative paths are fine
    assert saved_step("run") == 1
    assert set(tree(tmp_path)) == {f"here/run/{name}" for name in EVERY_FILE}


def test_an_empty_folder_and_a_link_are_filled(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty", target_is_directory=True)
    for step in (1, 2):
        save_step(tmp_path / "link", step)
        assert (tmp_path / "link").is_symlink()
        assert saved_step(tmp_path / "empty") == saved_step(tmp_path / "link") == step
    monkeypatch.setenv("HOME", str(tmp_path))
    save_step("~/home [x]", 3)
    assert saved_step(tmp_path / "home [x]") == saved_step("~/home [x]") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "home [x]", "link"]


# Full disks


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_a_save(descriptor: int, folder: Path, name: str) -> Path | None:
    """The file ``name`` that a save into the folder is writing, if that is what is open here."""
    for path in folder.parent.glob(f".{folder.name}.saving-*/{name}"):
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return path
    return None


@pytest.mark.parametrize("first", [True, False], ids=["first save", "later save"])
@pytest.mark.parametrize("broken", [*sorted(EVERY_FILE), "write", "mkdir", "rename", "last rename"])
def test_a_full_disk_leaves_the_earlier_checkpoint(broken, first, folder, monkeypatch):
    if first:
        shutil.rmtree(folder)
    before, fsync, mkdir, rename = tree(folder.parent), os.fsync, Path.mkdir, Path.rename

    def fsync_until_full(descriptor):
        if path := in_a_save(descriptor, folder, broken):
            os.truncate(path, 20)  # as much as went in
            full()
        fsync(descriptor)

    def mkdir_if_old(path, **options):
        return full() if ".saving-" in path.name else mkdir(path, **options)

    def rename_to_previous(path, target):
        return full() if broken == "rename" or target == folder else rename(path, target)

    with monkeypatch.context() as patch:
        if broken == "write":
            patch.setattr(Path, "write_bytes", full)
        elif broken == "mkdir":
            patch.setattr(Path, "mkdir", mkdir_if_old)
        elif "rename" in broken:
            patch.setattr(Path, "rename", rename_to_previous)
        else:
            patch.setattr(os, "fsync", fsync_until_full)
        with pytest.raises(OSError, match="No space left on device") as error:
            save_step(folder, 2)
    text = one_sentence(error)
    assert str(folder) in text
    assert "free some disk space" in text
    assert not list(folder.parent.glob(".run.saving-*"))
    if broken != "last rename":
        assert tree(folder.parent) == before
    if not first:
        assert saved_step(folder) == 1
    save_step(folder, 3)  # once there is space again
    assert saved_step(folder) == 3
    assert set(tree(folder.parent)) == {f"run/{name}" for name in EVERY_FILE}


def test_every_file_is_on_the_disk_before_the_swap(folder, monkeypatch):
    done, rename = [], Path.rename

    def fsync(descriptor):
        found = [name for name in EVERY_FILE if in_a_save(descriptor, folder, name)]
        assert os.fstat(descriptor).st_size > 1
        done.extend(found)

    def rename_when_flushed(path, target):
        assert sorted(done) == sorted(EVERY_FILE)
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename_when_flushed)
    save_step(folder, 2)
    assert saved_step(folder) == 2


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"no checkpoint could be saved in .*/file/run") as error:
        save_step(tmp_path / "file" / "run", 1)
    one_sentence(error)


def test_an_interrupted_save_cleans_up(folder, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = tree(folder.parent)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_step(folder, 2)
    assert tree(folder.parent) == before


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path):
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a small disk of its own needs Linux and root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    try:
        save_step(disk / "run", 1)
        large = GPT(GPTConfig(64, 64, n_layer=4, n_head=2, n_embd=64))
        cases = (large, None), (MODEL, {"x": torch.ones(200_000)}), (MODEL, list(range(100_000)))
        for model, state in cases:  # the weights, the state's tensors, its JSON do not fit
            with pytest.raises(OSError, match="No space left on device") as error:
                checkpoint.save(disk / "run", model, CharTokenizer("ab"), state)
            assert str(disk / "run") in one_sentence(error)
            assert os.listdir(disk) == ["run"]
            assert saved_step(disk / "run") == 1
        save_step(disk / "run", 2)
        assert saved_step(disk / "run") == 2
    finally:
        subprocess.run(["umount", disk], check=True)


# Kills


def test_the_earlier_checkpoint_is_found_between_the_renames(folder):
    folder.rename(folder.parent / ".run.previous")
    assert saved_step(folder) == 1
    folder.mkdir()  # somebody made the folder anew
    assert saved_step(folder) == 1
    save_step(folder, 2)
    assert saved_step(folder) == 2
    assert set(tree(folder.parent)) == {f"run/{name}" for name in EVERY_FILE}


def test_leftovers_are_cleaned_but_not_those_of_others(folder, monkeypatch):
    ours = folder.parent / ".run.saving-0123abcd"
    others = [
        ".run.saving-mine",
        ".run.x.saving-0123abcd",
        "run.saving-0123abcd",
        ".run_saving-0123abcd",
    ]
    for name in (ours.name, *others):
        (folder.parent / name).mkdir()
        (folder.parent / name / ".tmpAbCd").write_text("half a file")
    rmtree = shutil.rmtree

    def rmtree_out_of_reach(path, **options):
        assert not ours.exists()  # or a run that still lives could rename half of it into place
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", rmtree_out_of_reach)
    save_step(folder, 2)
    assert saved_step(folder) == 2
    assert sorted(os.listdir(folder.parent)) == sorted([*others, "run"])


def test_two_runs_in_one_folder_do_not_mix(folder, monkeypatch):
    """The other run saves while ours writes: one of them fails, and what is there is whole."""
    fsync = os.fsync

    def meet(descriptor):
        fsync(descriptor)
        if in_a_save(descriptor, folder, "state.json"):
            monkeypatch.setattr(os, "fsync", fsync)
            save_step(folder, 3)

    monkeypatch.setattr(os, "fsync", meet)
    with pytest.raises(OSError, match="could be saved"):
        save_step(folder, 2)
    assert saved_step(folder) == 3
    assert os.listdir(folder.parent) == ["run"]


def in_a_child(work) -> int:
    """Process id of a forked child that does ``work()`` and then ends without cleaning up."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def die_before(event_number: int) -> None:
    """End this process, as a kill would, just before its n-th operation on the file system."""
    seen = 0

    def hook(event: str, _):
        nonlocal seen
        if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.scandir"):
            seen += 1
            if seen == event_number:
                os._exit(9)

    sys.addaudithook(hook)


def test_a_kill_before_every_single_operation(folder, tmp_path_factory):
    start = shutil.copytree(folder, tmp_path_factory.mktemp("start") / "run")
    seen, only_previous = set(), 0
    for number in range(1, 200):
        shutil.rmtree(folder.parent)
        shutil.copytree(start, folder)

        def work(number=number):
            die_before(number)
            save_step(folder, 2)

        _, status = os.waitpid(in_a_child(work), 0)
        seen.add(saved_step(folder))
        only_previous += not folder.exists()
        if os.waitstatus_to_exitcode(status) == 0:
            break
        save_step(folder, 3)  # the next run goes on from whatever was left
        assert saved_step(folder) == 3
        assert os.listdir(folder.parent) == ["run"]
    else:
        pytest.fail("a save that never ends")
    assert number > 15  # it did die on the way
    assert seen == {1, 2}
    assert only_previous  # and between the two renames too


def save_for_ever(folder, first: int) -> None:
    for step in range(first, 10**9):
        save_step(folder, step)
        os.write(1, b".")


def test_kills_at_random_moments(tmp_path):
    chance, folder, step = random.Random(0), tmp_path / "run", 0
    save_step(folder, step)
    for _ in range(30):
        read, write = os.pipe()

        def work(step=step, write=write):
            os.dup2(write, 1)
            save_for_ever(folder, step + 1)

        child = in_a_child(work)
        os.read(read, 1)  # one save is done
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read), os.close(write)
        before, step = step, saved_step(folder)
        assert step > before
    save_step(folder, step + 1)
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.slow
def test_many_kills_of_a_fresh_interpreter(tmp_path):
    chance, folder, step = random.Random(1), tmp_path / "run", 0
    save_step(folder, step)
    code = "import sys, test_checkpoint as t; t.save_for_ever(sys.argv[1], int(sys.argv[2]))"
    for _ in range(25):
        process = subprocess.Popen(
            [sys.executable, "-c", code, folder, str(step + 1)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent,
        )
        process.stdout.read(1)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.communicate()
        before, step = step, saved_step(folder)
        assert step > before
    save_step(folder, step + 1)
    assert os.listdir(tmp_path) == ["run"]


def test_windows_would_allow_it(folder, monkeypatch):
    """Windows renames only to free names, and nothing that holds an open or mapped file."""
    rename = os.rename

    def strict_rename(source, target, **kwargs):
        if os.path.exists(target):
            raise FileExistsError(errno.EEXIST, "exists", str(target))
        maps = Path("/proc/self/maps")
        assert not maps.exists() or str(source) not in maps.read_text()
        return rename(source, target, **kwargs)

    monkeypatch.setattr(os, "rename", strict_rename)
    monkeypatch.setattr(os, "replace", lambda *_, **__: pytest.fail("os.replace"))
    kept = load_both(folder)
    (folder.parent / "empty").mkdir()
    for place in (folder, folder, folder.parent / "empty"):
        save_step(place, 2)
        assert saved_step(place) == 2
    assert kept is not None
