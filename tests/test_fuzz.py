"""Damaged and hostile files: whatever stands in one, a loader loads it or says what is wrong.

A case is a number: `python tests/test_fuzz.py 1234` tells what case 1234 changes, and what comes of
it. A case takes one save, changes it at random, writes the checksums anew in half of the cases, as
a hostile writer would, and loads it. Slow: 100,000 cases, and flips all over every kind of file.
"""

import json
import random
import re
import shutil
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path

import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors import torch as safetensors

import llmkit
from llmkit import checkpoint, folders, modern
from llmkit import tokenizer as tokenizers
from llmkit.bpe import BPETokenizer
from llmkit.deploy import export
from llmkit.finetune import instructions, lora, pretrained
from llmkit.model import GPT, GPTConfig
from llmkit.scale import token_file

QUICK, SLOW = 1000, 100_000
SHAPE = dict(block_size=8, n_layer=1, n_head=2, n_embd=8)
TEXT = "the river keeps no ledger of the rain\n" * 3
VALUES = [
    None, True, False, 0, -1, 1, 3, 7, 10**6, 10**9, 10**12, 2**63, 10**30, 10**400, 1.5, 1e308,
    float("nan"), float("inf"), "", "a\nb", "\ud800", "\0", "x" * 5000, "../x", "I64", "F8_E4M3",
    "rotary", "sinusoidal", [], [[]], [0, 0], {}, {"a": {}},
]  # fmt: skip


def model(**changes) -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(**{"vocab_size": 24, **SHAPE, **changes})).eval()


def content(thing):
    """What must be equal in two loads that are equal, to the bit."""
    if isinstance(thing, torch.nn.Module):
        parts = dict(thing.named_parameters())
        flat = {
            name: (part.qdata, part.scale) if hasattr(part, "qdata") else part
            for name, part in parts.items()
        }
        session = getattr(thing, "session", None)
        ran = thing(torch.arange(6)[None] % thing.config.vocab_size) if session else None
        return content(thing.config), content(flat), content(ran)
    if isinstance(thing, torch.Tensor):
        raw = thing.detach().contiguous().reshape(-1).view(torch.uint8)
        return str(thing.dtype), tuple(thing.shape), raw.numpy().tobytes()
    if isinstance(thing, dict):
        return {name: content(part) for name, part in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [content(part) for part in thing]
    if hasattr(thing, "to_json"):
        return thing.to_json()
    return repr(thing)


def with_adapter(path: Path) -> GPT:
    return lora.load(path, model())


class Saves:
    """Small valid saves as {file: bytes}, and how each is read: made once."""

    def __init__(self, place: Path):
        char = llmkit.CharTokenizer.from_text(TEXT)
        word = llmkit.WordTokenizer.from_text(TEXT, unknown="<unk>")
        bpe = BPETokenizer.train(TEXT, 262, ["<|endoftext|>"])
        V = char.vocab_size
        state = {"step": 3, "moments": [torch.ones(3), {"a": 1.5}], "name": "x", "none": None}
        checkpoint.save(place / "checkpoint", model(vocab_size=V), char, state)
        other = model(vocab_size=V, position="rotary", tie_weights=False)
        checkpoint.save(place / "rotary", other, char, state)
        checkpoint.save(place / "sinusoidal", model(vocab_size=V, position="sinusoidal"), word)
        export.save_int8(place / "int8", model(vocab_size=V), char)
        export.save_onnx(place / "onnx", model(vocab_size=V), char)
        gpt2 = model(vocab_size=bpe.vocab_size)
        pretrained.save_gpt2(gpt2, place / "gpt2")
        pretrained.save_gpt2(gpt2, place / "gpt2 bpe", bpe)
        for name, choices in (("modern", {}), ("experts", {"n_expert": 2, "qk_norm": True})):
            shape = modern.ModernConfig(bpe.vocab_size, 8, 2, 2, 8, n_kv_head=1, **choices)
            modern.save(modern.Modern(shape), place / name, bpe, file_bytes=9_000)
        lora.save(place / "adapter" / "a.safetensors", lora.apply(model(), rank=2))
        for name, tokenizer in (("character", char), ("word", word), ("bpe", bpe)):
            (place / name).mkdir()
            tokenizer.save(place / name / "t.json")
        (place / "pair").mkdir()
        vocabulary = {}
        for i, token in enumerate(bpe.tokens):
            special = token == b"<|endoftext|>"
            vocabulary[token.decode() if special else llmkit.bpe.files.spell(token)] = i
        (place / "pair" / "vocab.json").write_text(json.dumps(vocabulary))
        lines = [" ".join(map(llmkit.bpe.files.spell, pair)) for pair in bpe.merges]
        (place / "pair" / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
        (place / "items").mkdir()
        rows = Path(instructions.__file__).parents[2] / "data" / "instructions.jsonl"
        some = "".join(rows.read_text("utf-8").splitlines(True)[:4])
        (place / "items" / "i.jsonl").write_text(some)
        (place / "ids").mkdir()
        token_file.write(place / "ids" / "t.safetensors", [TEXT], char)
        self.readers = {
            "checkpoint": (checkpoint.load, ""),
            "rotary": (checkpoint.load, ""),
            "sinusoidal": (checkpoint.load, ""),
            "int8": (export.load, ""),
            "onnx": (export.load, ""),
            "gpt2": (pretrained.load_gpt2, ""),
            "modern": (modern.load, ""),
            "experts": (modern.load, ""),
            "adapter": (with_adapter, "a.safetensors"),
            "gpt2 bpe": (pretrained.load_gpt2, ""),
            "character": (tokenizers.load, "t.json"),
            "word": (tokenizers.load, "t.json"),
            "bpe": (tokenizers.load, "t.json"),
            "pair": (BPETokenizer.gpt2, ""),
            "items": (instructions.load, "i.jsonl"),
            "ids": (token_file.load, "t.safetensors"),
        }
        self.files = {
            name: {p.name: p.read_bytes() for p in sorted((place / name).iterdir())}
            for name in self.readers
        }
        self.content = {
            name: content(read(place / name / file)) for name, (read, file) in self.readers.items()
        }
        self.states = {
            name: content(checkpoint.load_state(place / name)) for name in ("checkpoint", "rotary")
        }


# Kinds whose readers are of this file's concern, most of them; onnxruntime's sessions are slow.
WEIGHTS = {"checkpoint": 6, "rotary": 6, "sinusoidal": 4, "int8": 2, "adapter": 6, "gpt2": 6}
WEIGHTS |= {"modern": 3, "experts": 3}
TEXTS = dict.fromkeys(("gpt2 bpe", "character", "word", "bpe", "pair", "items", "ids"), 3)
SEALED = {"checkpoint", "rotary", "sinusoidal", "int8", "onnx", "adapter"}  # with checksums


def change_json(raw: bytes, rng: random.Random) -> tuple[bytes, str]:
    """JSON with one thing in it changed: any value, or name, at any depth."""
    whole = json.loads(raw)
    holders = [(None, None)]

    def walk(node):
        keys = node if isinstance(node, dict) else range(len(node)) if type(node) is list else ()
        for key in keys:
            holders.append((node, key))
            walk(node[key])

    walk(whole)
    node, key = rng.choice(holders)
    how = rng.choice(["value", "value", "value", "nest", "delete", "rename", "add"])
    value = rng.choice(VALUES)
    if node is None:
        whole, how = (value, "value") if rng.random() < 0.2 else (whole, "add")
        if how == "add" and isinstance(whole, dict):
            whole[rng.choice(["x", "a\nb", "\ud800"])] = value
    elif how == "value":
        node[key] = value
    elif how == "nest":
        node[key] = "@nest@"
    elif how == "delete":
        del node[key]
    elif isinstance(node, dict) and how == "rename":
        node[rng.choice(["x", "a\nb", "h.7.x", "wte.weight"])] = node.pop(key)
    elif isinstance(node, dict):
        node["x"] = value
    else:
        node.insert(key, value)
    depth = rng.choice([5, 200, 900, 950, 970, 980, 990, 10**5])
    made = json.dumps(whole).replace('"@nest@"', "[" * depth + "]" * depth)
    return made.encode(), f"{how} at {key!r}: {str(value)[:30]!r}, depth {depth}"


def change_header(raw: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A safetensors file, with one thing in its header changed."""
    size = struct.unpack("<Q", raw[:8])[0]
    header, what = change_json(raw[8 : 8 + size], rng)
    return struct.pack("<Q", len(header)) + header + raw[8 + size :], what


def change_told(raw: bytes, rng: random.Random) -> tuple[bytes, str]:
    """An adapter, with one thing changed in the JSON within its header."""
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    told, what = change_json(header["__metadata__"]["llmkit"].encode(), rng)
    header["__metadata__"]["llmkit"] = told.decode()
    made = json.dumps(header).encode()
    return struct.pack("<Q", len(made)) + made + raw[8 + size :], what


def seal(files: dict[str, bytes], kind: str, place: Path) -> None:
    """The checksums written anew, where what is there can have any."""
    try:
        if kind == "adapter":
            (place / "sealing").write_bytes(files["a.safetensors"])
            with safe_open(place / "sealing", "pt") as file:
                about = json.loads(file.metadata()["llmkit"])
            tensors = safetensors.load(files["a.safetensors"])
            about.pop("checksum", None)
            about["checksum"] = lora._checksum(about, tensors)
            files["a.safetensors"] = safetensors.save(tensors, {"llmkit": json.dumps(about)})
            return
        header = json.loads(files["config.json"])
        for name in header["files"].keys() & files.keys():
            header["files"][name] = zlib.crc32(files[name])
        header["checksum"] = folders._checksum(header)
        files["config.json"] = json.dumps(header).encode()
    except Exception:  # what cannot be sealed stays open, and the loader must say so
        try:
            header = json.loads(files["config.json"])
            header["checksum"] = folders._checksum(header)
            files["config.json"] = json.dumps(header).encode()
        except Exception:  # noqa: S110 - likewise
            pass


def change(saves: Saves, kind: str, rng: random.Random) -> tuple[dict[str, bytes], str, bool]:
    """The files of one save after one change; what was changed; whether checksums would notice."""
    files = dict(saves.files[kind])
    name = rng.choice(sorted(files))
    raw = files[name]
    hows = ["flip", "cut", "delete", "double", "rename", "swap", "insides", "insides", "insides"]
    how = rng.choice(hows)
    what = ""
    if how == "insides" and name.endswith(".safetensors"):
        way = change_told if kind == "adapter" and rng.random() < 0.6 else change_header
        files[name], what = way(raw, rng)
    elif how == "insides" and name.endswith(".json"):
        files[name], what = change_json(raw, rng)
    elif how == "insides" and name.endswith(".jsonl"):
        lines = raw.splitlines()
        i = rng.randrange(len(lines))
        lines[i], what = change_json(lines[i], rng)
        files[name] = b"\n".join(lines)
    elif how == "cut":
        files[name] = raw[: rng.randrange(len(raw))]
    elif how == "delete":
        del files[name]
    elif how == "double":
        files[name] = raw + raw
    elif how == "rename":
        files["x" + name] = files.pop(name)
    elif how == "swap":
        other = rng.choice(sorted(saves.files))
        files[name] = rng.choice(list(saves.files[other].values()))
        what = f"by one of {other}"
    else:
        place, bit = rng.randrange(len(raw)), rng.randrange(8)
        files[name] = raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :]
        what = f"bit {bit} of byte {place}"
    # A config.json of another save agrees with itself: nobody can tell that it hides a state.
    sealed = kind in SEALED and (how, name) != ("swap", "config.json")
    return files, f"{kind}/{name}: {how} {what}", sealed


def fill(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, raw in files.items():
        (folder / name).write_bytes(raw)


def attempt(read, path: Path, folder: Path):
    """What a reader gives, or its error in one line; anything else is raised as it is."""
    try:
        return content(read(path))
    except (ValueError, FileNotFoundError) as caught:
        said, kind = str(caught), type(caught)
        assert kind in (ValueError, FileNotFoundError), f"{kind.__name__}: {said}"
        assert "\n" not in said, f"several lines: {said}"
        assert str(folder) in said or path.name in said, f"names no file: {said}"
        assert len(said) < 1000, f"{len(said)} characters: {said[:200]}"
        return None


def run(saves: Saves, number: int, folder: Path, kinds: dict[str, int]) -> str | None:
    """What is wrong with the outcome of a case, if anything."""
    rng = random.Random(number)
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    files, what, sealed = change(saves, kind, rng)
    if kind in SEALED and rng.random() < 0.6:
        sealed, what = False, f"{what}, sealed"
        seal(files, kind, folder.parent)
    fill(folder, files)
    read, file = saves.readers[kind]
    started = time.process_time()
    try:
        found = attempt(read, folder / file, folder)
        if sealed and found is not None and found != saves.content[kind]:
            return f"{number}: {what}: loaded something else"
        if kind in saves.states:
            found = attempt(checkpoint.load_state, folder, folder)
            if sealed and found is not None and found != saves.states[kind]:
                return f"{number}: {what}: another state"
    except Exception as error:
        return f"{number}: {what}: {type(error).__name__}: {str(error)[:200]}"
    if (seconds := time.process_time() - started) > 5:
        return f"{number}: {what}: took {seconds:.0f} s"
    return None


def fuzz(saves: Saves, numbers, folder: Path, kinds: dict[str, int]) -> list[str]:
    process = psutil.Process()
    before = process.memory_info().rss
    wrong = [fault for number in numbers if (fault := run(saves, number, folder, kinds))]
    grown = (process.memory_info().rss - before) / 1e6
    return wrong + ([f"the memory grew by {grown:.0f} MB"] if grown > 500 else [])


@pytest.fixture(scope="module")
def saves(tmp_path_factory) -> Saves:
    return Saves(tmp_path_factory.mktemp("saves"))


def test_a_changed_model_is_loaded_or_refused_in_one_sentence(saves, tmp_path):
    faults = fuzz(saves, range(QUICK * 7 // 10), tmp_path / "case", WEIGHTS)
    assert not faults, "\n".join(faults[:20])


def test_a_changed_onnx_export_is_refused_in_one_sentence(saves, tmp_path):
    faults = fuzz(saves, range(20), tmp_path / "case", {"onnx": 1})
    assert not faults, "\n".join(faults[:20])


def test_a_changed_text_file_is_read_or_refused_in_one_sentence(saves, tmp_path):
    faults = fuzz(saves, range(QUICK * 3 // 10), tmp_path / "case", TEXTS)
    assert not faults, "\n".join(faults[:20])


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [WEIGHTS | {"onnx": 0.1}, TEXTS], ids=["models", "texts"])
def test_a_hundred_thousand_changes(kinds, saves, tmp_path):
    faults = fuzz(saves, range(QUICK, QUICK + SLOW // 2), tmp_path / "case", kinds)
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults[:20])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["checkpoint", "int8", "onnx", "adapter"])
def test_every_flip_is_noticed_or_harmless(kind, saves, tmp_path):
    read, file = saves.readers[kind]
    folder, counts = tmp_path / "case", {"noticed": 0, "harmless": 0, "missed": 0}
    for name, raw in saves.files[kind].items():
        for place in range(0, len(raw), 1000 if len(raw) > 2000 else 1):
            flipped = raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :]
            fill(folder, saves.files[kind] | {name: flipped})
            found = attempt(read, folder / file, folder)
            same = found == saves.content[kind]
            if name == "state.pt":
                found = attempt(checkpoint.load_state, folder, folder)
                same = found == saves.states[kind]
            counts["noticed" if found is None else "harmless" if same else "missed"] += 1
    print(kind, counts)
    assert counts["noticed"]
    assert not counts["missed"], counts


if __name__ == "__main__":  # any case by its number, and which kinds: models (or else) texts
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "saves").mkdir()
        kinds = TEXTS if "texts" in sys.argv else WEIGHTS
        first, last = (int(re.sub(r"\D", "", n)) for n in (sys.argv[1], sys.argv[-1]))
        made = Saves(Path(place) / "saves")
        print("\n".join(fuzz(made, range(first, max(first, last) + 1), Path(place) / "c", kinds)))
