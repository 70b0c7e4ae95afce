"""Checkpoints: exact round trips, damaged and foreign folders, full disks, and real kills."""

import errno
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llmkit import checkpoint, folders
from llmkit.model import GPT, GPTConfig
from llmkit.tokenizer import CharTokenizer, WordTokenizer

TINY = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8)
MODEL = GPT(TINY)
FILES = ["config.json", "model.safetensors", "state.pt", "tokenizer.json"]


def save_step(folder, step: int) -> None:
    """A checkpoint of which every part shows the step: each weight, each number of the state."""
    model = deepcopy(MODEL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(step)
    state = {"step": step, "moments": {0: torch.full((50,), float(step))}}
    checkpoint.save(folder, model, CharTokenizer("ab"), state)


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
    assert len(text) < 400
    return text


def edit(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(request, monkeypatch):
    """A killed process, unlike a power cut, does not lose what it wrote; the slow tests do wait."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder that holds the checkpoint of step 1, with all four files."""
    save_step(tmp_path / "run", 1)
    assert sorted(tree(tmp_path / "run")) == FILES
    return tmp_path / "run"


# Round trips of models


MODELS = [
    MODEL,
    GPT(GPTConfig(7, 5, 1, 2, 8, tie_weights=False, bias=False, position="sinusoidal")),
    GPT(GPTConfig(7, 5, 1, 2, 8, 0.5, norm_first=False, activation="relu", position="rotary")),
]


@pytest.mark.parametrize("model", MODELS, ids=["gpt", "untied", "post-norm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_model_comes_back_exactly(model, dtype, tmp_path):
    model = deepcopy(model).to(dtype).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    folder = tmp_path / "deep" / "run"
    assert checkpoint.save(str(folder), model) == folder
    assert model.training
    loaded, tokenizer = checkpoint.load(str(folder))
    assert tokenizer is None
    assert checkpoint.load_state(folder) is None
    assert (type(loaded), loaded.config) == (type(model), model.config)
    assert not any(module.training for module in loaded.modules())
    assert dict(loaded.named_parameters()).keys() == dict(model.named_parameters()).keys()
    found = dict(loaded.named_parameters()) | dict(loaded.named_buffers())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert found[name].dtype == dtype
        assert torch.equal(found[name], tensor), name
        assert found[name].requires_grad == tensor.requires_grad
    ids = torch.randint(0, 7, (2, 5))
    assert torch.equal(loaded(ids), model.eval()(ids))


def test_tied_weights_are_stored_once_and_every_weight_keeps_its_dtype(tmp_path):
    model = deepcopy(MODEL)
    model.h[1].mlp.bfloat16()
    checkpoint.save(tmp_path / "run", model)
    expected = {name: weight.dtype for name, weight in model.named_parameters()}
    stored = load_file(tmp_path / "run" / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in stored.items()} == expected
    loaded, _ = checkpoint.load(tmp_path / "run")
    assert {name: weight.dtype for name, weight in loaded.named_parameters()} == expected
    assert loaded.lm_head.weight is loaded.wte.weight


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_between_a_gpu_and_a_cpu(tmp_path):
    model, state = GPT(TINY).cuda().bfloat16(), torch.arange(6.0, device="cuda").view(2, 3).T
    checkpoint.save(tmp_path / "run", model, state=state)
    assert torch.equal(checkpoint.load_state(tmp_path / "run"), state.cpu())
    loaded, _ = checkpoint.load(tmp_path / "run", device="cuda")
    assert loaded.lm_head.weight is loaded.wte.weight
    for weight, expected in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(weight, expected)


def test_the_seed_and_the_default_device_do_not_matter(folder):
    before = torch.get_rng_state()
    with torch.device("meta"):
        assert saved_step(folder) == 1
    assert torch.equal(torch.get_rng_state(), before)
    assert checkpoint.load(folder, device="meta")[0].wte.weight.is_meta  # the one asked for


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_compiled_model_is_saved_as_the_model_in_it(real, tmp_path):
    model = torch.compile(MODEL) if real else torch.nn.Module()
    if not real:  # importing the compiler takes seconds
        model._orig_mod = MODEL
    checkpoint.save(tmp_path / "run", model)
    assert torch.equal(checkpoint.load(tmp_path / "run")[0].wte.weight, MODEL.wte.weight)


def test_the_tokenizer_comes_back(tmp_path):
    for tokenizer in (CharTokenizer("a\n😀é", unknown="?"), WordTokenizer.from_text("to be")):
        checkpoint.save(tmp_path / "run", MODEL, tokenizer)
        _, loaded = checkpoint.load(tmp_path / "run")
        assert type(loaded) is type(tokenizer)
        ids = range(tokenizer.vocab_size)
        assert (loaded.vocab_size, loaded.decode(ids)) == (len(ids), tokenizer.decode(ids))


def test_a_smaller_checkpoint_leaves_nothing_of_the_larger_one(folder):
    checkpoint.save(folder, MODEL)
    assert set(tree(folder)) == {"config.json", "model.safetensors"}
    assert checkpoint.load(folder)[1] is None
    assert checkpoint.load_state(folder) is None


def test_other_models_are_refused(tmp_path):
    stranger = type("GPT", (torch.nn.Linear,), {})
    for model in (torch.nn.Linear(2, 2), stranger(2, 2)):
        with pytest.raises(TypeError, match="must be llmkit's GPT"):
            checkpoint.save(tmp_path / "run", model)
    assert tree(tmp_path) == {}


def test_a_model_that_would_not_load_again_is_not_saved(folder):
    wider, untied, adapted, nan = GPT(TINY), GPT(TINY), GPT(TINY), GPT(TINY)
    untied.lm_head.weight = torch.nn.Parameter(untied.wte.weight.detach().clone())
    adapted.adapter = torch.nn.Linear(2, 2)
    nan.wte.weight.data[3, 3] = float("nan")
    before = tree(folder.parent)
    wider.h[0].mlp.c_fc = torch.nn.Linear(8, 9)
    expected = (
        (untied, "lm_head.weight"),
        (adapted, "lora.save"),
        (nan, "not finite"),
        (wider, "c_fc"),
    )
    for model, told in expected:
        with pytest.raises(ValueError, match=told) as error:
            checkpoint.save(folder, model)
        one_sentence(error)
        assert tree(folder.parent) == before


def test_a_flipped_configuration_or_tokenizer_is_noticed(folder):
    for name, old, new in [
        ("config.json", b'"block_size": 8', b'"block_size": 9'),
        ("config.json", b'"state.pt"', b'"statf.pt"'),
        ("tokenizer.json", b'["a", "b"]', b'["a", "c"]'),
    ]:
        whole = (folder / name).read_bytes()
        assert old in whole
        (folder / name).write_bytes(whole.replace(old, new))
        with pytest.raises(ValueError, match="damaged"):
            load_both(folder)
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("layers", [10**9, "2", 2.0, True])
def test_a_configuration_that_cannot_be_is_refused_before_anything_is_built(layers, folder):
    header = json.loads((folder / "config.json").read_text())
    header["config"]["n_layer"] = layers
    header.pop("checksum")
    (folder / "config.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=r"config\.json"):
        checkpoint.load(folder)


def test_a_name_with_signs_of_patterns_touches_no_other_run(tmp_path):
    (tmp_path / ".a.saving-1").mkdir()
    save_step(tmp_path / "[a]", 1)
    assert (tmp_path / ".a.saving-1").exists()


# Round trips of states

DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
DTYPES += [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def assert_same(a, b) -> None:
    """Equal down to types, the order of dicts, the bits of floats and tensors."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        a, b = (t.clone(memory_format=torch.contiguous_format).view(-1) for t in (a, b))
        assert a.view(torch.uint8).tolist() == b.view(torch.uint8).tolist()
    elif isinstance(a, (dict, list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):  # the keys of a dict
            assert_same(x, y)
            if isinstance(a, dict):
                assert_same(a[x], b[y])
    else:
        assert repr(a) == repr(b)  # nan is nan, -0.0 is not 0.0


texts = st.text(st.characters(exclude_categories=()), max_size=8)  # half surrogate pairs too
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts
leaves |= st.sampled_from(DTYPES).map(lambda dtype: torch.tensor([[0, 1, 1]]).to(dtype))
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(texts | st.integers(), inner)
    ),
).filter(lambda state: state is not None)


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(states)
def test_any_state_comes_back(tmp_path, state):
    checkpoint.save(tmp_path / "run", MODEL, state=state)
    assert_same(checkpoint.load_state(tmp_path / "run"), state)


def test_the_awkward_ones_come_back(tmp_path):
    """What random states seldom hit: keys alike, tensors that share memory or are empty."""
    base = torch.arange(12.0).view(3, 4)
    keys = {0: base, "0": base + 1, "[0]": 2, "a": {"b": base + 2}, "a']['b": base + 3}
    views = [base, base, base[1], base[:, 1], base.T, base[2, 3], base.expand(2, 3, 4), base[3:]]
    state = {"keys": keys, "views": views, "kind": {"kind": "tuple", "content": ()}}
    checkpoint.save(tmp_path / "run", MODEL, state=state | {"p": torch.nn.Parameter(base)})
    loaded = checkpoint.load_state(tmp_path / "run")
    assert_same(loaded, state | {"p": base})
    loaded["views"][0].zero_()  # memory of its own
    assert_same(loaded["views"][1:], views[1:])


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        (object(), "state is a object"),
        ({"a": [1, {2, 3}]}, "state['a'][1] is a set"),
        (({7: b"bytes"},), "state[0][7] is a bytes"),
        ({"x": {"deep": Path("here")}}, "state['x']['deep'] is a PosixPath"),
    ],
)
def test_what_a_state_cannot_hold_is_named(state, complaint, folder):
    before = tree(folder.parent)
    with pytest.raises(TypeError) as error:
        checkpoint.save(folder, MODEL, state=state)
    assert one_sentence(error).startswith(complaint)
    assert tree(folder.parent) == before


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


@pytest.mark.parametrize("name", FILES)
def test_a_missing_cut_damaged_or_foreign_file_is_named(name, folder):
    whole, foreign = (folder / name).read_bytes().rstrip(), folder.parent / "foreign"
    contents = [whole[:size] for size in (0, 1, 8, len(whole) // 2, len(whole) - 1)]
    save_file({"wte.weight": torch.ones(2, 2)}, foreign)
    contents += [foreign.read_bytes(), b'{"model_type": "gpt2", "n_embd": 768}', b"[1]", None]
    if name.endswith((".safetensors", ".pt")):
        contents.append(whole[:-1] + bytes([whole[-1] ^ 1]))  # a single bit
    for content in contents:
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            load_both(folder)
        assert str(folder / name) in one_sentence(error)


class Trap:
    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("name", FILES)
def test_a_pickle_in_place_of_a_file_is_not_run(name, folder):
    trap, files = Trap(), json.loads((folder / "config.json").read_text())["files"]
    trap.path = str(folder / "sprung")
    (folder / name).write_bytes(pickle.dumps(trap))
    if name != "config.json":  # who puts it there can write its checksum too
        edit(folder, files=files | {name: zlib.crc32((folder / name).read_bytes())})
    with pytest.raises((ValueError, SafetensorError)):
        load_both(folder)
    assert not (folder / "sprung").exists()


def test_another_format_is_told(folder):
    edit(folder, format="llmkit checkpoint 2")
    before = tree(folder)
    for function in (checkpoint.load, checkpoint.load_state, lambda folder: save_step(folder, 2)):
        with pytest.raises(ValueError, match="from another version of llmkit") as error:
            function(folder)
        assert str(folder / "config.json") in one_sentence(error)
    assert tree(folder) == before


# What saving must never delete


@pytest.mark.parametrize("kind", ["a file more", "another config", "no config"])
def test_a_folder_with_anything_else_in_it_is_left_alone(kind, folder):
    if kind == "no config":
        (folder / "config.json").unlink()
    else:
        name = "notes.txt" if kind == "a file more" else "config.json"
        (folder / name).write_text('{"model_type": "gpt2"}')
    before = tree(folder.parent)
    with pytest.raises(ValueError, match="choose another folder") as error:
        save_step(folder, 2)
    assert str(folder) in one_sentence(error)
    assert tree(folder.parent) == before


def test_a_file_in_the_place_of_a_folder_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match=r"no checkpoint could be saved in .*/file"):
            save_step(place, 1)
    assert tree(tmp_path) == {"file": b"mine"}


def test_an_empty_folder_and_a_link_are_filled(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty", target_is_directory=True)
    for step in (1, 2):
        save_step(tmp_path / "link", step)
        assert (tmp_path / "link").is_symlink()
        assert saved_step(tmp_path / "empty") == saved_step(tmp_path / "link") == step
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    save_step("~/home [x]", 3)
    assert saved_step("home [x]") == saved_step("~/home [x]") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "home [x]", "link"]


# Full disks


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("first", [True, False], ids=["first save", "later save"])
@pytest.mark.parametrize("broken", ["mkdir", "write_bytes", "fsync", "rename", "last rename"])
def test_a_full_disk_leaves_the_earlier_checkpoint(broken, first, folder, monkeypatch):
    if first:
        shutil.rmtree(folder)
    before, rename = tree(folder.parent), Path.rename

    def rename_until_full(path, target):
        return full() if broken == "rename" or target == folder else rename(path, target)

    with monkeypatch.context() as patch:
        if broken == "fsync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr(
                Path, broken.split()[-1], rename_until_full if "rename" in broken else full
            )
        with pytest.raises(OSError, match=r"No space left on device.*free some disk") as error:
            save_step(folder, 2)
    assert str(folder) in one_sentence(error)
    assert not list(folder.parent.glob(".run.saving-*"))
    assert tree(folder.parent) == before or broken == "last rename"
    assert first or saved_step(folder) == 1
    save_step(folder, 3)  # once there is space again
    assert saved_step(folder) == 3
    assert os.listdir(folder.parent) == ["run"]


def test_every_file_is_on_the_disk_before_the_swap(folder, monkeypatch):
    flushed, swap = [], folders._swap

    def swap_when_flushed(fresh, target):
        assert sorted(flushed) == sorted(path.stat().st_ino for path in fresh.iterdir())
        swap(fresh, target)

    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(os.fstat(file).st_ino))
    monkeypatch.setattr(folders, "_swap", swap_when_flushed)
    save_step(folder, 2)
    assert len(flushed) == len(FILES)


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", tmp_path]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not allow mounting a small disk")
    try:
        save_step(tmp_path / "run", 1)
        large = GPT(GPTConfig(64, 64, n_layer=4, n_head=2, n_embd=64))
        for model, state in ((large, None), (MODEL, torch.ones(200_000)), (MODEL, [0] * 400_000)):
            with pytest.raises(OSError, match="No space left on device"):
                checkpoint.save(tmp_path / "run", model, CharTokenizer("ab"), state)
            assert os.listdir(tmp_path) == ["run"]
            assert saved_step(tmp_path / "run") == 1
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# Kills


def test_the_earlier_checkpoint_is_found_between_the_renames(folder):
    folder.rename(folder.parent / ".run.previous")
    assert saved_step(folder) == 1
    folder.mkdir()  # somebody made the folder anew
    assert saved_step(folder) == 1
    save_step(folder, 2)
    assert saved_step(folder) == 2
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


def test_two_runs_in_one_folder_do_not_mix(folder):
    """Another run starts a save while ours writes, and dies in it: ours fails, for it is robbed."""

    class Deadly(CharTokenizer):
        def save(self, path):
            os._exit(9)

    class Slow(CharTokenizer):
        def save(self, path):
            os.waitpid(in_a_child(lambda: checkpoint.save(folder, MODEL, Deadly("ab"))), 0)
            super().save(path)

    with pytest.raises(OSError, match="could be saved"):
        checkpoint.save(folder, MODEL, Slow("ab"))
    assert saved_step(folder) == 1
    save_step(folder, 2)
    assert os.listdir(folder.parent) == ["run"]


def save_and_die(folder: Path, change: int) -> None:
    """Save step 2, but end, as by a kill, just before the n-th change of the file system."""
    changes = iter(range(1, 1000))

    def hook(event: str, arguments: tuple) -> None:
        writes = event == "open" and arguments[1] not in ("r", "rb")
        writes = writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
        if writes and next(changes) == change:
            os._exit(9)

    sys.addaudithook(hook)
    save_step(folder, 2)


def test_a_kill_before_every_single_change(folder, tmp_path_factory):
    start = shutil.copytree(folder, tmp_path_factory.mktemp("start") / "run")
    found, between, status = [], 0, 9
    while status:
        shutil.rmtree(folder.parent)
        shutil.copytree(start, folder)
        child = in_a_child(lambda: save_and_die(folder, len(found) + 1))
        _, status = os.waitpid(child, 0)
        found.append(saved_step(folder))
        between += not folder.exists()
        save_step(folder, 3)  # the next run goes on from whatever was left
        assert saved_step(folder) == 3
        assert os.listdir(folder.parent) == ["run"]
    assert len(found) > 15  # it did die on the way
    assert found == sorted(found)
    assert set(found) == {1, 2}
    assert between == 1  # of the two renames


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_at_random_moments(kills, tmp_path):
    chance, folder, step = random.Random(0), tmp_path / "run", 0

    def save_without_end():
        for number in range(step + 1, 10**9):
            save_step(folder, number)
            os.write(write, b".")

    for _ in range(kills):
        read, write = os.pipe()
        child = in_a_child(save_without_end)
        os.read(read, 1)  # one save is done
        time.sleep(chance.uniform(0, kills / 1000))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read), os.close(write)
        before, step = step, saved_step(folder)
        assert step > before
    save_step(folder, step + 1)
    assert os.listdir(tmp_path) == ["run"]


def test_windows_would_allow_it(folder, monkeypatch):
    """Windows renames only to free names, and nothing that holds a mapped file."""
    rename, kept = os.rename, load_both(folder)

    def strict_rename(source, target):
        maps = Path("/proc/self/maps")
        if os.path.exists(target) or (maps.exists() and str(source) in maps.read_text()):
            raise FileExistsError(target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", strict_rename)
    (folder.parent / "empty").mkdir()
    for place in (folder, folder.parent / "empty"):
        save_step(place, 2)
        assert saved_step(place) == 2
    assert kept


def test_a_reader_that_meets_two_saves_in_the_midst_of_their_renames_begins_again(folder):
    """Before and after there is nothing at the folder's place, but not the same nothing."""
    waiting, read = folders.previous(folder), []

    def save_up_to_the_second_rename():
        shutil.rmtree(waiting, ignore_errors=True)
        checkpoint.save(folder, GPT(TINY))
        folder.rename(waiting)

    def load(place):
        read.append(place)
        if len(read) == 1:
            save_up_to_the_second_rename()
            raise ValueError("what was read is gone")
        return checkpoint.load(place)

    save_up_to_the_second_rename()
    assert isinstance(folders.steady(load)(folder)[0], GPT)
    assert read == [folder, folder]
    (waiting / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model.safetensors is missing or damaged"):
        folders.steady(load)(folder)  # which nobody replaced


def test_a_reader_beside_a_writer_sees_one_whole_save(folder):
    """Each save has weights and a tokenizer of its own; what is read is of one and the same."""
    pairs = []
    for number in range(2):
        model = GPT(TINY)
        model.wte.weight.data.fill_(number)
        letters = "abcdefghijk"[number:] + "xyz"[: number + 1]
        pairs.append((model, CharTokenizer(letters[: TINY.vocab_size])))
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for model, tokenizer in pairs:
                checkpoint.save(folder, model, tokenizer)

    checkpoint.save(folder, *pairs[0])
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(60):
            model, tokenizer = checkpoint.load(folder)
            number = int(model.wte.weight[0, 0])
            assert tokenizer.characters == pairs[number][1].characters
    finally:
        stop.set()
        writer.join()
