"""Every notebook's GPU path, rehearsed on the CPU, so that no cell is first run by a reader.

The convention that makes it possible:

1. A notebook says "more on a GPU" only by `runtime.pick(cpu=..., gpu=...)`; a block that only a GPU
   should run stands under `if runtime.pick(cpu=False, gpu=True):`.
2. Here pick gives its GPU value, but what takes time is capped by name (`CAPS`): where a pick is
   assigned to `steps` or passed as `steps=`, inside `gpu=dict(steps=...)`, and in GPU-only blocks.
   Sizes are capped so that what fits together still does, and what does not still fails.
   `TrainConfig(steps=200)` and `dict(steps=200)`, the same on both, are capped too, except in a
   cell that asserts something and is not tagged "trained".
3. The corpus is called "tiny_shakespeare" but is a short stand-in, as is everything that would be
   fetched; so no notebook asserts the size of a corpus it fetches.
4. What only real training can make true is asserted in cells tagged "trained": here their asserts
   are evaluated, and may be false. All others must hold.
"""

from __future__ import annotations

import ast
from pathlib import Path

import build
import nbformat
import pytest

NOTEBOOKS = sorted(build.NOTEBOOKS.glob("*.ipynb"))
CAPS = {
    "steps": 3,
    "epochs": 3,
    "batch_size": 4,
    "block_size": 64,
    "n_layer": 2,
    "max_new_tokens": 16,
    "tasks": 60,
    "number": 500,
    "length": 1_000_000,
    "scene_size": 3_000,
    "size": 15_000,
    "share": 0.2,
    "seconds": 1,
}
COUNTS = ("steps", "epochs", "tasks")  # also as the end of a name: warmup_steps, n_tasks
WIDTHS = (192, 64)  # a model's width becomes the first that divides it: heads divide it as before

PRELUDE = """
def rehearse():
    import dataclasses
    import tempfile
    from pathlib import Path

    import datasets
    import huggingface_hub
    import llmkit
    import matplotlib
    from llmkit import modern
    from llmkit.speed import fast_gpt

    load_text, load_dataset = llmkit.load_text, datasets.load_dataset
    embedded = load_text("embedded")
    folder = tempfile.TemporaryDirectory()
    stand_in = Path(folder.name) / "stand_in.txt"
    stand_in.write_text(embedded[:20_000] + "".join(sorted(set(embedded))), encoding="utf-8")

    def short_text(name="embedded"):
        return load_text(name if name == "embedded" or Path(name).exists() else stand_in)

    def short_dataset(*args, data_files=None, _keep=folder, **kwargs):
        if "parallel-sentences" in args[0]:  # pairs with English: the project's own
            parallel = llmkit.projects.languages.load_parallel()
            other = parallel[args[1].removeprefix("en-")]
            return datasets.Dataset.from_dict({"english": parallel["en"], "non_english": other})
        fetched = str(data_files).startswith("http")
        return load_dataset(*args, data_files=str(stand_in) if fetched else data_files, **kwargs)

    # In place of SmolLM2, as if it had been fetched, and of Qwen3 from the hub.
    def small_modern(name=None, local_dir=Path(folder.name) / "modern", **how):
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        tokenizer = llmkit.BPETokenizer.train(embedded[:20_000], 300, special)
        shape = dict(n_layer=2, n_head=4, n_embd=32, n_kv_head=2, qk_norm=name is not None)
        config = modern.ModernConfig(tokenizer.vocab_size, 256, **shape)
        modern.save(modern.Modern(config), local_dir, tokenizer)
        template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
        (local_dir / "chat_template.jinja").write_text(template)
        return local_dir

    def snapshot_download(name, **how):
        if not name.startswith("Qwen/"):
            raise OSError("offline")
        return small_modern(name, **how)

    load_gpt2 = llmkit.pretrained.load_gpt2

    def small_gpt2(name):
        if name not in llmkit.model.GPT2_SIZES:
            return load_gpt2(name)
        tokenizer = llmkit.BPETokenizer.train(embedded[:20_000], 300, ["<|endoftext|>"])
        shape = llmkit.GPTConfig(300, block_size=64, n_layer=2, n_head=2, n_embd=32)
        return llmkit.GPT(shape).eval(), tokenizer

    sprint = fast_gpt.sprint

    def short_sprint(*args, **kwargs):
        shape, settings = sprint(*args, **kwargs)
        return shape, dataclasses.replace(settings, steps=3)

    fast_gpt.sprint = short_sprint
    modern.fetched = small_modern
    huggingface_hub.snapshot_download = snapshot_download
    llmkit.pretrained.load_gpt2 = small_gpt2
    llmkit.load_text = llmkit.data.load_text = short_text
    datasets.load_dataset = short_dataset
    llmkit.Runtime.pick = lambda self, *, cpu, gpu: gpu
    matplotlib.rcParams["figure.dpi"] = 20  # a coarse picture shows as well that it can be drawn

rehearse()
del rehearse
"""
PRETEND = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pretend
pretend.start()
"""
# Those that were seen to pass on the device of pretend.py. 10b asks for the address of a tensor's
# numbers, which it has not; 08 draws hundreds of tokens, each op of them in Python.
ON_PRETEND = ("03_bigram", "03b_backpropagation", "05_transformer", "05b_positions_and_norms",
              "06_training", "08b_kv_cache")  # fmt: skip
# Between two notebooks: nothing that the first one defined or drew is left for the second.
AFRESH = """
import matplotlib.pyplot
matplotlib.pyplot.close("all")
get_ipython().reset(new_session=False)
import gc
gc.collect()
del gc
"""


class Rehearsed(ast.NodeTransformer):
    """A cell as it is rehearsed: budgets capped, and in "trained" cells asserts let off."""

    def __init__(self, tree: ast.Module, trained: bool) -> None:
        nodes = list(ast.walk(tree))
        self.trained = trained
        # Nothing in this cell needs more than a few steps of training.
        self.brief = trained or not any(isinstance(node, ast.Assert) for node in nodes)
        # x, where a pick has gpu=x
        self.named = {n.value.id for n in nodes if is_gpu(n) and isinstance(n.value, ast.Name)}
        self.gpu_only = False  # inside a pick's gpu=..., or in a block that only a GPU runs

    def capped(self, name: str | None, value: ast.expr) -> ast.expr:
        last_word = str(name).rpartition("_")[2]
        known = name if name in CAPS else last_word if last_word in COUNTS else None
        caps = [CAPS[known]] if known else []
        number = isinstance(value, ast.Constant) and type(value.value) in (int, float)
        if name == "n_embd" and number:
            caps = [width for width in WIDTHS if value.value % width == 0]
        if caps and (is_pick(value) or (self.gpu_only and number)):
            return ast.Call(ast.Name("min", ast.Load()), [value, ast.Constant(caps[0])], [])
        return value

    def within_gpu(self, nodes: list, only: bool) -> list:
        outside, self.gpu_only = self.gpu_only, self.gpu_only or only
        visited = [self.visit(node) for node in nodes]
        self.gpu_only = outside
        return visited

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        target = node.targets[0]
        name = getattr(target, "id", None)
        [node.value] = self.within_gpu([node.value], name in self.named)
        if isinstance(target, ast.Tuple) and is_pick(node.value):
            for gpu in filter(is_gpu, node.value.keywords):
                if isinstance(gpu.value, ast.Tuple):
                    self.cap_tuple(target, gpu.value)
        node.value = self.capped(name, node.value)
        return node

    def cap_tuple(self, names: ast.Tuple, values: ast.Tuple) -> None:
        """The numbers of `a, b = pick(cpu=..., gpu=(1, 2))`, each by its name."""
        outside, self.gpu_only = self.gpu_only, True
        pairs = zip(names.elts, values.elts, strict=True)
        values.elts = [self.capped(getattr(name, "id", None), value) for name, value in pairs]
        self.gpu_only = outside

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        [value] = self.within_gpu([node.value], is_gpu(node))
        node.value = self.capped(node.arg, value)
        return node

    def visit_Dict(self, node: ast.Dict) -> ast.Dict:
        self.generic_visit(node)
        names = [getattr(key, "value", None) for key in node.keys]
        node.values = [self.capped(*pair) for pair in zip(names, node.values, strict=True)]
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        called = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
        if called == "range":
            node.args = [self.capped("steps", argument) for argument in node.args]
        for keyword in node.keywords:
            literal = isinstance(keyword.value, ast.Constant)
            makes_settings = called in ("TrainConfig", "dict") and keyword.arg == "steps"
            if makes_settings and literal and self.brief:
                keyword.value = ast.Constant(CAPS["steps"])
        return node

    def visit_If(self, node: ast.If) -> ast.If:
        node.test = self.visit(node.test)
        node.body = self.within_gpu(node.body, is_pick(node.test))
        node.orelse = self.within_gpu(node.orelse, False)
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        self.generic_visit(node)
        return ast.Expr(node.test) if self.trained else node


def is_pick(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "pick"


def is_gpu(node: ast.AST) -> bool:
    return isinstance(node, ast.keyword) and node.arg == "gpu"


def rehearsed(source: str, trained: bool = False) -> str:
    tree = ast.parse(source)
    tree = Rehearsed(tree, trained).visit(tree)
    return ast.unparse(ast.fix_missing_locations(tree))


class Stage:
    """Plays one notebook after another in one kernel, since starting costs more than playing."""

    def __init__(self, device: str = "cpu") -> None:
        self.kernel, self.device = None, device

    def play(self, notebook: nbformat.NotebookNode, folder: Path) -> None:
        """Run every cell as on a GPU; `build.BuildError` names the cell that fails."""
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell in code:
            cell.source = rehearsed(cell.source, "trained" in build.tags(cell))
        first = AFRESH
        if self.kernel is None:
            self.kernel = build.ThisPython(kernel_name="python3")
            first = PRETEND + PRELUDE if self.device == "pretend" else PRELUDE
        opening = nbformat.v4.new_code_cell(first)
        environment = build.kernel_environment() | {"LLMKIT_CORPUS": "tiny_shakespeare"}
        environment |= {"LLMKIT_DEVICE": self.device}
        try:
            build.execute(
                nbformat.v4.new_notebook(cells=[opening, *code]), folder, environment, self.kernel
            )
        except build.BuildError:
            self.close()  # who knows what the failure has left; the next notebook starts anew
            raise

    def close(self) -> None:
        if self.kernel is not None:
            build.stop(self.kernel)
            self.kernel = None


@pytest.fixture(scope="module")
def stage():
    stage = Stage()
    yield stage
    stage.close()


def differs_on_a_gpu(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return ".pick(" in text or "runtime.corpus" in text


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem) for path in NOTEBOOKS if differs_on_a_gpu(path)]
)
def test_gpu_branches(path, stage):
    stage.play(nbformat.read(path, as_version=4), path.parent)


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_PRETEND)
def test_gpu_branches_on_a_device_that_will_not_meet_the_cpu(name):
    stage = Stage("pretend")
    path = build.NOTEBOOKS / f"{name}.ipynb"
    try:
        stage.play(nbformat.read(path, as_version=4), path.parent)
    finally:
        stage.close()


@pytest.mark.parametrize(
    ("written", "run"),
    [
        ("steps = r.pick(cpu=9, gpu=900)", "steps = min(r.pick(cpu=9, gpu=900), 3)"),
        ("f(warmup_steps=r.pick(cpu=9, gpu=90))", "f(warmup_steps=min(r.pick(cpu=9, gpu=90), 3))"),
        ("steps = 900", "steps = 900"),
        ("rate = r.pick(cpu=0.1, gpu=0.2)", "rate = r.pick(cpu=0.1, gpu=0.2)"),
        (
            "c = r.pick(cpu=C(steps=9), gpu=C(steps=900, n_layer=6, n_head=6))",
            "c = r.pick(cpu=C(steps=9), gpu=C(steps=min(900, 3), n_layer=min(6, 2), n_head=6))",
        ),
        (
            "c = r.pick(cpu=C(n_embd=96), gpu=C(n_embd=384))\nd = r.pick(cpu=1, gpu=C(n_embd=256))",
            "c = r.pick(cpu=C(n_embd=96), gpu=C(n_embd=min(384, 192)))\n"
            "d = r.pick(cpu=1, gpu=C(n_embd=min(256, 64)))",
        ),
        ("c = r.pick(cpu=1, gpu=C(n_embd=100))", "c = r.pick(cpu=1, gpu=C(n_embd=100))"),
        (
            "large = dict(n_layer=6)\nc = r.pick(cpu={}, gpu=large)",
            "large = dict(n_layer=min(6, 2))\nc = r.pick(cpu={}, gpu=large)",
        ),
        (
            "size, rate = r.pick(cpu=(1, 2), gpu=(90_000, 9))",
            "size, rate = r.pick(cpu=(1, 2), gpu=(min(90000, 15000), 9))",
        ),
        (
            "c = r.pick(cpu={}, gpu={'batch_size': 64, 'vocab_size': 50257})",
            "c = r.pick(cpu={}, gpu={'batch_size': min(64, 4), 'vocab_size': 50257})",
        ),
        (
            "for i in range(r.pick(cpu=9, gpu=90)):\n    f(i)",
            "for i in range(min(r.pick(cpu=9, gpu=90), 3)):\n    f(i)",
        ),
        (
            "if r.pick(cpu=False, gpu=True):\n    epochs = 50\nelse:\n    epochs = 5",
            "if r.pick(cpu=False, gpu=True):\n    epochs = min(50, 3)\nelse:\n    epochs = 5",
        ),
        ("llmkit.TrainConfig(steps=200, seed=1)", "llmkit.TrainConfig(steps=3, seed=1)"),
        ("c = dict(steps=200, size=9)", "c = dict(steps=3, size=9)"),
        ("c = TrainConfig(steps=200)\nassert f(c)", "c = TrainConfig(steps=200)\nassert f(c)"),
    ],
)
def test_what_takes_time_is_capped(written, run):
    assert rehearsed(written) == run


def test_only_trained_cells_may_assert_in_vain():
    assert rehearsed("assert loss < 2", trained=True) == "loss < 2"
    brief = "train(TrainConfig(steps=3))\nloss < 2"
    assert rehearsed("train(TrainConfig(steps=99))\nassert loss < 2", trained=True) == brief
    assert rehearsed("assert loss < 2") == "assert loss < 2"


CELLS = """
import os
import datasets, llmkit, torch
runtime = llmkit.start()
assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])
text = llmkit.load_text(runtime.corpus)
url = "https://example.org/x.txt"
fetched = datasets.load_dataset("text", data_files=url, split="train", sample_by="document")
assert runtime.corpus == "tiny_shakespeare" and len(set(text)) == 65 and len(text) < 30_000
assert text == llmkit.data.load_text("julius_caesar") == fetched["text"][0]
assert len(llmkit.load_text("embedded")) > 100_000
steps = runtime.pick(cpu=200, gpu=5_000)
n_head = runtime.pick(cpu=2, gpu=6)
assert (steps, n_head) == (3, 6)
"""


def test_a_rehearsal_runs_the_gpu_branch(stage, tmp_path):
    """On a corpus that stands in, with capped budgets, and a fault in the branch is found."""
    cells = [nbformat.v4.new_code_cell(CELLS)]
    cells += [nbformat.v4.new_code_cell("assert steps > 3", metadata={"tags": ["trained"]})]
    cells += [nbformat.v4.new_code_cell("if runtime.pick(cpu=False, gpu=True):\n    undefined")]
    with pytest.raises(build.BuildError, match="NameError: name 'undefined'"):
        stage.play(nbformat.v4.new_notebook(cells=cells), tmp_path)
