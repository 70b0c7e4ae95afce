"""The model in the page: its graph beside PyTorch, its modules run by Node beside llmkit, the
folder, and how its runtime comes. In Chromium: test_web_page.py."""

import hashlib
import json
import os
import random
import re
import sys
import tarfile
import unicodedata
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from paging import EMPTY, run_node, runtime

import llmkit
from llmkit import checkpoint
from llmkit.__main__ import main
from llmkit.attention import attention_weights
from llmkit.deploy import export, int8, web
from llmkit.generation import fitting, next_token_probabilities
from llmkit.model import GPT, GPTConfig

TEXT = llmkit.load_text("embedded")
TOKENIZER = llmkit.CharTokenizer.from_text(TEXT)
V, ROOM = TOKENIZER.vocab_size, 24
SHAPE = {"vocab_size": V, "block_size": ROOM, "n_layer": 2, "n_head": 2, "n_embd": 16}
ABOUT = {"name": "test", "note": "A model for tests.", "text": "GRIZEL:\n"}


def build(**changes) -> GPT:
    """An int8 model of which no weight is zero, which would hide a difference."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**SHAPE, **changes})).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return int8.to_int8(model)


class Graph:
    """The graph, run by onnxruntime in Python, with the cache that it is to be given."""

    def __init__(self, path: Path, config: GPTConfig) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        empty = np.zeros((config.n_layer, config.n_head, 0, config.head_size), np.float32)
        self.keys = self.values = empty
        self.layers = config.n_layer

    def read(self, ids: torch.Tensor) -> tuple[torch.Tensor, list[np.ndarray]]:
        """ids (T,) -> logits (T, V) and L of attention (H, T, S + T)."""
        feeds = {"ids": ids.numpy(), "keys": self.keys, "values": self.values}
        found = dict(zip(self.names(), self.session.run(self.names(), feeds), strict=True))
        self.keys = np.concatenate([self.keys, found["new_keys"]], axis=2)
        self.values = np.concatenate([self.values, found["new_values"]], axis=2)
        return torch.from_numpy(found["logits"]), [
            found[f"attention.{layer}"] for layer in range(self.layers)
        ]

    def names(self) -> list[str]:
        return [output.name for output in self.session.get_outputs()]


VARIANTS = [
    dict(position=p, norm_first=n, activation=a, tie_weights=t, bias=b)
    for p, n, (a, t, b) in product(
        ("learned", "sinusoidal", "rotary"),
        (True, False),
        (("gelu", True, True), ("relu", False, False)),
    )
]


@pytest.mark.parametrize("choices", VARIANTS, ids=lambda c: "-".join(map(str, c.values())))
def test_the_graph_gives_the_scores_and_the_attention_of_pytorch(choices, tmp_path):
    """Of the same int8 weights, each a float again: read at once, and in parts with the cache."""
    model = build(**choices)
    path = web.write_graph(model, tmp_path / "m.onnx")
    ids = torch.randint(V, (ROOM,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(ids[None])[0]
        weights = attention_weights(model, ids[None])[:, 0]  # (L, H, T, T)
    assert expected.abs().max() > 1
    for parts in ((ROOM,), (1, 9, ROOM - 10)):
        graph, seen = Graph(path, model.config), 0
        for part in ids.split(parts):
            logits, attention = graph.read(part)
            end = seen + len(part)
            torch.testing.assert_close(logits, expected[seen:end], atol=1e-4, rtol=0)
            for found, wanted in zip(attention, weights, strict=True):
                torch.testing.assert_close(
                    torch.from_numpy(found), wanted[:, seen:end, :end], atol=1e-5, rtol=0
                )
            seen = end


def test_the_file_is_a_byte_for_each_weight(tmp_path):
    model = build(n_embd=64)
    content = web.write_graph(model, tmp_path / "m.onnx").read_bytes()
    assert len(content) < 1.3 * model.num_parameters()
    assert str(Path.home()).encode() not in content


# --------------------------------------------------------------------- the page's modules, by Node

TOKENIZE = 'import {makeTokenizer, Unknown} from "./tokenizer.js";'
ENCODED = """
const tokenizer = makeTokenizer(given.fields);
return given.texts.map((text) => {
  const ids = tokenizer.encode(text);
  return {ids, text: tokenizer.decode(ids), pieces: tokenizer.pieces(ids).join("")};
});
"""
KNOWN = [chr(c) for c in range(0x11000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
ODD = [
    *" \t\n\r\v\f\x1c\x1f\x85\xa0\u1680\u2003\u2028\u3000\ufeff\u200b",
    "'s",
    "'ll",
    "don't",
    "½",
    "٣",
]


def random_texts(count: int, seed: int) -> list[str]:
    """Words of the play, odd white space, digits, and characters of any script, mixed."""
    chance = random.Random(seed)
    words = re.findall(r" ?\w+|\W", TEXT[:20_000])
    kinds = [
        words,
        ODD,
        KNOWN,
        list("0123456789"),
        ["🦊", "é", "日本", "\U0001f468\u200d\U0001f469"],
    ]
    return [
        "".join(chance.choice(chance.choice(kinds)) for _ in range(chance.randrange(30)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("digits", [False, True])
@pytest.mark.parametrize("lacking", [False, True], ids=["all-bytes", "lacking-bytes"])
def test_byte_pairs_are_those_of_python(digits, lacking, tmp_path):
    learned = llmkit.BPETokenizer.train(TEXT[:60_000], 600, ["<|endoftext|>"])
    tokens = [t for t in learned.tokens if not (lacking and t in (b"\xf0", b"\xc2"))]
    tokenizer = llmkit.BPETokenizer(
        learned.merges, ["<|endoftext|>", "<a>"], tokens if lacking else None, digits
    )
    texts = ["", "<|endoftext|>", TEXT[:3000], *random_texts(500, seed=digits)]
    given = {"fields": json.loads(tokenizer.to_json()), "texts": texts}
    found = run_node(tmp_path, TOKENIZE, ENCODED, given)
    for text, each in zip(texts, found, strict=True):
        ids = tokenizer.encode(text)
        assert each["ids"] == ids.tolist(), text
        assert each["text"] == each["pieces"] == tokenizer.decode(ids)


def test_characters_are_those_of_python(tmp_path):
    tokenizer = llmkit.CharTokenizer.from_text(TEXT + "🦊é")
    chance = random.Random(1)
    texts = ["".join(chance.choices(tokenizer.characters, k=n)) for n in range(300)]
    given = {"fields": json.loads(tokenizer.to_json()), "texts": texts}
    for text, each in zip(texts, run_node(tmp_path, TOKENIZE, ENCODED, given), strict=True):
        assert each["ids"] == tokenizer.encode(text).tolist()
        assert each["text"] == text
    known = llmkit.CharTokenizer.from_text("abc", unknown="<?>")
    given = {"fields": json.loads(known.to_json()), "texts": ["aéb"]}
    assert run_node(tmp_path, TOKENIZE, ENCODED, given)[0]["ids"] == known.encode("aéb").tolist()


def test_any_ids_become_the_text_of_python(tmp_path):
    """Half characters too: tokens of a byte each, in any order."""
    tokenizer = llmkit.BPETokenizer.train(TEXT[:9000] + "日本 é" * 30, 300)
    chance = random.Random(2)
    rows = [[chance.randrange(300) for _ in range(chance.randrange(1, 25))] for _ in range(400)]
    body = "const t = makeTokenizer(given.fields); return given.rows.map((ids) => t.decode(ids));"
    given = {"fields": json.loads(tokenizer.to_json()), "rows": rows}
    for ids, text in zip(rows, run_node(tmp_path, TOKENIZE, body, given), strict=True):
        assert text == tokenizer.decode(torch.tensor(ids))


def test_a_character_that_is_not_known_is_named_with_its_place(tmp_path):
    body = """
    const of = (fields, text) => {
      try { makeTokenizer(fields).encode(text); } catch (error) { return error.message; }
    };
    return [of(given.char, "a🦊é"), of(given.bpe, "🦊\\ud83d"), of(given.word, "a")];
    """
    given = {
        "char": json.loads(llmkit.CharTokenizer("a🦊").to_json()),
        "bpe": json.loads(llmkit.BPETokenizer([]).to_json()),
        "word": json.loads(llmkit.WordTokenizer(["a"]).to_json()),
    }
    char, bpe, word = run_node(tmp_path, TOKENIZE, body, given)
    assert char == "The model does not know “é” (U+00E9), character 3 of the text: take it out."
    assert bpe == "The model does not know (U+D83D), character 2 of the text: take it out."
    assert "tokenizer is of kind word" in word


DRAWING = 'import {probabilities, draw, darts, fitting, cost} from "./model.js";'


def test_the_distribution_is_that_of_python(tmp_path):
    chance = torch.Generator().manual_seed(0)
    logits = torch.randn((60, 70), generator=chance) * 3
    logits[:9] = logits[:9].round()  # with equals
    cases = [
        [row.tolist(), t, p]
        for row in logits
        for t, p in ((1, 1), (0, 0.5), (0.7, 0.9), (0.05, 0.3), (2, 0.6), (1, 0.05))
    ]
    body = (
        "return given.map(([logits, t, p]) => [...probabilities(Float32Array.from(logits), t, p)]);"
    )
    for (row, t, p), found in zip(cases, run_node(tmp_path, DRAWING, body, cases), strict=True):
        wanted = next_token_probabilities(torch.tensor(row), t, top_p=p)
        assert ((torch.tensor(found) > 0) == (wanted > 0)).all()
        torch.testing.assert_close(torch.tensor(found).float(), wanted, atol=1e-6, rtol=0)


def test_tokens_are_drawn_by_their_shares(tmp_path):
    body = """
    const dart = darts(given.seed), counts = [0, 0, 0, 0], again = darts(given.seed);
    for (let n = 0; n < 20000; n++) counts[draw(given.p, dart())]++;
    const first = Array.from({length: 5}, again);
    return {counts, first, same: Array.from({length: 5}, darts(given.seed)),
            ends: [draw(given.p, 0), draw(given.p, 1 - 1e-17), draw(given.p, 0.999999999)]};
    """
    p = [0.0, 0.5, 0.3, 0.2]
    firsts = []
    for seed in (0, 1, 2, 4294967295):
        found = run_node(tmp_path, DRAWING, body, {"seed": seed, "p": p})
        assert found["counts"][0] == 0
        for count, share in zip(found["counts"], p, strict=True):
            assert abs(count - 20_000 * share) < 5 * (20_000 * share * (1 - share)) ** 0.5 + 1
        assert found["first"] == found["same"]
        assert found["ends"] == [1, 3, 3]
        firsts.append(found["first"][0])
    assert len(set(firsts)) == 4


def test_windows_and_costs_are_those_of_python(tmp_path):
    body = """
    return {windows: given.cases.map(([T, room]) => fitting(T, room)),
            costs: given.logits.map((each, id) => cost(given.logits, id))};
    """
    cases = [[T, room] for room in (1, 2, 7, 16) for T in range(1, 60)]
    logits = (torch.randn(9, generator=torch.Generator().manual_seed(3)) * 40).tolist()
    found = run_node(tmp_path, DRAWING, body, {"cases": cases, "logits": logits})
    assert found["windows"] == [fitting(T, room) for T, room in cases]
    costs = -torch.tensor(logits, dtype=torch.float64).log_softmax(0) / np.log(2)
    torch.testing.assert_close(torch.tensor(found["costs"], dtype=torch.float64), costs)


MODEL = 'import {Model, Writer, probabilities} from "./model.js";'
RUN = """
const base = new URL(".", import.meta.url);
const config = JSON.parse(await readFile(new URL("config.json", base), "utf8")).config;
const model = await Model.load(base, config), writer = new Writer(model);
const found = await writer.begin(given.ids, 1), ids = [];
for (let n = 0; n < given.count; n++) {
  const id = probabilities(writer.logits, 0).indexOf(1);
  ids.push(id);
  await writer.add(id);
}
return {logits: [...found.logits], maps: found.maps.map((map) => map.map((row) => [...row])),
        bits: await model.surprise(given.ids), ids};
"""


@pytest.mark.parametrize("length", [1, 20, 100])
def test_in_onnxruntime_web_it_is_the_model_of_pytorch(length, tmp_path):
    """Logits, attention, greedy text past the window, the surprise at a text of many windows."""
    model = build(block_size=80, position="rotary", n_embd=32)
    folder = web.save_web(tmp_path / "page", model, TOKENIZER, ABOUT, runtime())
    ids = TOKENIZER.encode(TEXT[:length])
    found = run_node(folder, MODEL, RUN, {"ids": ids.tolist(), "count": 150})
    window = ids[-fitting(length, 80) :]
    with torch.no_grad():
        logits = model(window[None])[0, -1]
        weights = attention_weights(model, window[None])[1, 0]
    torch.testing.assert_close(torch.tensor(found["logits"]).float(), logits, atol=1e-3, rtol=0)
    for head, rows in zip(weights, found["maps"], strict=True):
        for t, row in enumerate(rows):
            found_row = torch.tensor(row).float()
            torch.testing.assert_close(found_row, head[t, : t + 1], atol=1e-5, rtol=0)
    greedy = llmkit.generate(model, ids, 150, temperature=0)[length:]
    assert found["ids"] == greedy.tolist()
    assert len(found["bits"]) == length - 1
    if length > 1:
        loss = llmkit.evaluate(model, ids).loss / np.log(2)
        assert np.mean(found["bits"]) == pytest.approx(loss, abs=1e-4)


# ------------------------------------------------------------------------------------- the folder


def test_the_folder_is_whole_and_replaces_its_own_kind_only(tmp_path):
    model = build()
    folder = web.save_web(tmp_path / "page", model, TOKENIZER, ABOUT, EMPTY)
    names = {path.name for path in folder.iterdir()}
    kind = web.WEB.title
    assert names == web.WEB.files | {"config.json"}
    assert json.loads((folder / "config.json").read_text())["config"]["n_embd"] == 16
    web.save_web(folder, model, TOKENIZER, ABOUT, EMPTY)
    for place in (checkpoint.save(tmp_path / "m", GPT(model.config)), tmp_path):
        with pytest.raises(ValueError, match=f"says checkpoint, not {kind}|no {kind}"):
            web.save_web(place, model, TOKENIZER, ABOUT, EMPTY)
    with pytest.raises(ValueError, match="says web, not checkpoint"):
        export.load(folder)


def test_what_a_page_cannot_show_is_told(tmp_path, monkeypatch):
    model = build()
    with pytest.raises(ValueError, match="the tokenizer has 3 tokens, and the model 65"):
        web.save_web(tmp_path / "p", model, llmkit.CharTokenizer("abc"), ABOUT, EMPTY)
    words = llmkit.WordTokenizer.from_text(TEXT)
    with pytest.raises(TypeError, match="tokenizer must be CharTokenizer or BPETokenizer"):
        web.save_web(tmp_path / "p", model, words, ABOUT, EMPTY)
    with pytest.raises(TypeError, match="llmkit's GPT"):
        web.save_web(tmp_path / "p", torch.nn.Linear(2, 2), TOKENIZER, ABOUT, EMPTY)
    with pytest.raises(ValueError, match=r"give what int8\.to_int8 makes of it"):
        web.write_graph(GPT(model.config), tmp_path / "m.onnx")
    monkeypatch.setattr(web, "MOST", 1000)
    with pytest.raises(ValueError, match="too large for a page: it has ") as error:
        web.save_web(tmp_path / "p", model, TOKENIZER, ABOUT, EMPTY)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("serve it instead, with python -m llmkit serve")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'llmkit\[export\]'"):
        web.write_graph(model, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_gpt2_is_too_large_and_the_project_s_models_are_not():
    with torch.device("meta"):
        largest = GPT(GPTConfig(65, 256, n_layer=6, n_head=6, n_embd=384))
        gpt2 = GPT(GPTConfig.gpt2())
    assert largest.num_parameters() < web.MOST < gpt2.num_parameters()


# ------------------------------------------------------------------------------------ the command


@pytest.fixture
def no_runtime(monkeypatch):
    monkeypatch.setattr(web.runtime, "find", lambda folder=None: EMPTY)


def test_the_command_writes_a_page(tmp_path, capsys, no_runtime):
    model = GPT(GPTConfig(**SHAPE))
    checkpoint.save(tmp_path / "run" / "checkpoint", model, TOKENIZER)
    (tmp_path / "poem.txt").write_text(TEXT[:5000])
    run = str(tmp_path / "run")
    assert main(["export", run, "--web", "--text", str(tmp_path / "poem.txt")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"web       {tmp_path / 'run' / 'web'}"
    assert f"python -m http.server --directory {tmp_path / 'run' / 'web'}" in out
    about = json.loads((tmp_path / "run" / "web" / "about.json").read_text())
    held_out = llmkit.split(TOKENIZER.encode(TEXT[:5000]))[1]
    loss = llmkit.evaluate(int8.to_int8(model), held_out).loss
    assert about["name"] == "run"
    assert f"held-out loss {loss:.3f} nats per token, on all 499 held-out tokens" in about["note"]
    assert about["text"] in TOKENIZER.decode(held_out).splitlines(keepends=True)
    both = ["--web", "--int8", "--out", str(tmp_path / "out"), "--text", str(tmp_path / "poem.txt")]
    assert main(["export", run, *both]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"web", "int8"}


def test_the_command_s_errors_are_one_sentence(tmp_path, capsys, no_runtime, monkeypatch):
    model = GPT(GPTConfig(**SHAPE))
    checkpoint.save(tmp_path / "m", model, TOKENIZER)
    checkpoint.save(tmp_path / "bare", model)
    (tmp_path / "empty").mkdir()
    page = web.save_web(tmp_path / "page", model, TOKENIZER, ABOUT, EMPTY)
    cases = [
        ([str(tmp_path / "none"), "--web"], "there is no checkpoint"),
        ([str(tmp_path / "empty"), "--web"], "missing, damaged or of another program"),
        ([str(page), "--web"], "says web, not checkpoint"),
        ([str(tmp_path / "bare"), "--web"], "has no tokenizer: a page could not read a text"),
        ([str(tmp_path / "m"), "--int8", "--runtime", "x"], "--runtime is for --web"),
        (
            [str(tmp_path / "m"), "--web", "--out", str(tmp_path / "m")],
            "no page of a model:",
        ),
    ]
    for arguments, told in cases:
        assert main(["export", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert told in error
        assert error.count("\n") == 1
    monkeypatch.setattr(web, "MOST", 1000)
    assert main(["export", str(tmp_path / "m"), "--web"]) == 2
    assert "too large for a page" in capsys.readouterr().err


# ------------------------------------------------------------------------------------ the runtime


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two small files, known by their checksums, and a npm that hands it out."""
    dist = tmp_path / "package" / "dist"
    dist.mkdir(parents=True)
    known = {}
    for ours, (theirs, _) in web.runtime.FILES.items():
        (dist / theirs).write_text(f"// {theirs}")
        known[ours] = (theirs, hashlib.sha256((dist / theirs).read_bytes()).hexdigest())
    monkeypatch.setattr(web.runtime, "FILES", known)
    name = web.runtime.PACKAGE.replace("@", "-")
    with tarfile.open(tmp_path / f"{name}.tgz", "w:gz") as archive:
        archive.add(dist.parent, "package")
    programs = tmp_path / "programs"
    programs.mkdir()
    npm = programs / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncp {tmp_path}/{name}.tgz "$4"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    return tmp_path


def test_the_runtime_is_fetched_once(package):
    wanted = {
        "ort.js": b"// ort.wasm.bundle.min.mjs",
        "ort.wasm": b"// ort-wasm-simd-threaded.wasm",
    }
    assert web.runtime.find() == wanted
    assert web.runtime.find() == wanted
    [asked] = (package / "asked").read_text().splitlines()
    assert asked.startswith(f"pack {web.runtime.PACKAGE} --pack-destination ")
    kept = package / "cache" / "llmkit"
    assert [path.name for path in kept.iterdir()] == [web.runtime.PACKAGE.replace("@", "-")]


def test_an_unpacked_package_will_do(package):
    wanted = web.runtime.find()
    for folder in (package, package / "package", package / "package" / "dist"):
        assert web.runtime.find(folder) == wanted
    with pytest.raises(FileNotFoundError, match=r"there is no ort\.wasm\.bundle\.min\.mjs with"):
        web.runtime.find(package / "cache")
    (package / "package" / "dist" / "ort-wasm-simd-threaded.wasm").write_text("another")
    with pytest.raises(ValueError, match="damaged or replaced on its way"):
        web.runtime.find(package)


def test_a_package_that_was_replaced_is_refused(package, monkeypatch):
    known = {name: (theirs, "0" * 64) for name, (theirs, _) in web.runtime.FILES.items()}
    monkeypatch.setattr(web.runtime, "FILES", known)
    with pytest.raises(ValueError, match="was damaged or replaced on its way"):
        web.runtime.find()
    assert not (package / "cache" / "llmkit").exists()


def test_without_npm_or_a_network_it_says_what_to_do(package, monkeypatch):
    npm = package / "programs" / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\necho more >&2\nexit 1\n")
    with pytest.raises(ConnectionError) as error:
        web.runtime.find()
    told = f"npm cannot get {web.runtime.PACKAGE} (ENOTFOUND): check the network, or pass --runtime"
    assert str(error.value).startswith(told)
    monkeypatch.setenv("PATH", str(package / "cache"))
    with pytest.raises(FileNotFoundError, match=r"install Node\.js, or pass --runtime FOLDER") as e:
        web.runtime.find()
    assert "\n" not in str(e.value)


# --------------------------------------------------------------------------------- the book's model


def test_the_book_s_model_is_small_and_as_good_as_its_page_says():
    folder = Path(__file__).parents[1] / "notebooks" / "book" / "model"
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    model, tokenizer = export.load(folder / "int8")
    held_out = llmkit.split(tokenizer.encode(TEXT))[1]
    loss = float(re.search(r"held-out loss (\d\.\d+) nats per character", about["note"])[1])
    assert llmkit.evaluate(model, held_out).loss == pytest.approx(loss, abs=0.001)
    assert "by python -m llmkit train;" in about["note"]


def test_the_book_s_model_takes_at_most_2_mb(tmp_path):
    folder = Path(__file__).parents[1] / "notebooks" / "book" / "model"
    model, _ = export.load(folder / "int8")
    assert web.write_graph(model, tmp_path / "m.onnx").stat().st_size <= 2_000_000
    assert export.file_bytes(folder / "int8") <= 2_000_000
