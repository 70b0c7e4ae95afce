"""`llmkit.exercises`: right answers pass, wrong ones are told why, none ends a notebook."""

import ast
import builtins
import copy
import math
import random
import re
import sys
import time
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from build import tags

from llmkit.exercises import check, checking, examining, hint

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
sys.path.insert(0, str(Path(__file__).parent / "exercises"))
NUMBERS = checking.numbers()
KNOWN = {
    exercise.name: exercise
    for number in NUMBERS
    for exercise in import_module(f"llmkit.exercises.notebook_{number}").EXERCISES
}
WRONG = {
    name: answers
    for number in NUMBERS
    for name, answers in import_module(f"wrong_{number}").WRONG.items()
}


def notebook(number):
    [path] = NOTEBOOKS.glob(f"{number}_*.ipynb")
    return nbformat.read(path, 4)


@pytest.mark.parametrize("name", KNOWN)
def test_the_reference_passes_and_each_known_mistake_is_named(name):
    exercise = KNOWN[name]
    assert exercise.name == name
    assert len(exercise.hints) >= 2
    assert len(exercise.mistakes) >= 3
    assert repr(check(name, exercise.reference)) == f"passed: {exercise.checked}"
    for about, answer in exercise.mistakes.items():
        result = check(name, answer)
        assert (result.state, result.about.splitlines()[-1]) == ("wrong", about)


@pytest.mark.parametrize("name", KNOWN)
def test_wrong_answers_of_readers_are_told_why(name):
    assert len(WRONG[name]) >= 3
    for answer, told in WRONG[name]:
        result = check(name, answer)
        assert result.state == "wrong"
        assert told in result.about


@pytest.mark.parametrize("number", NUMBERS)
def test_in_the_notebook_stubs_are_not_tried_yet_and_solutions_pass(number):
    """As stored; nbval runs them again."""
    states = {}
    for cell in notebook(number).cells:
        if cell.cell_type == "code" and (found := re.search(r'check\("([\w.]+)"', cell.source)):
            state = cell.outputs[-1].data["text/plain"].partition(":")[0]
            states.setdefault(found[1], []).append((state, "solution" in tags(cell)))
    expected = [("not tried yet", False), ("passed", True)]
    assert states == {name: expected for name in KNOWN if name.startswith(f"{number}.")}
    assert len(states) >= 4


# ----------------------------------------------------------------- answers that are none

NAME = "04.fading_weights"


def endless(T):
    while True:
        pass


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError


def raising(error):
    raise error


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (3, "the answer is an int; a function is wanted"),
        (torch.zeros(2), "the answer is a Tensor; a function is wanted"),
        (lambda T: sys.exit(), "it raised SystemExit"),
        (lambda T: exec("raise KeyboardInterrupt"), "it raised KeyboardInterrupt"),
        (lambda T: undefined, "it raised NameError: name 'undefined' is not defined"),  # noqa: F821
        (lambda: 1, "it raised TypeError"),
        (lambda T: raising(ValueError), "it raised ValueError"),
        (lambda T: raising(ValueError("one\ntwo " + 99 * "long ")), "ValueError: one two long"),
        (lambda T: raising(Unspeakable()), "it raised Unspeakable"),
        (lambda T: (i for i in range(T)), "it gave a generator: use return, not yield"),
        (lambda T: [1.0], "a tensor is wanted, not a list"),
        (lambda T: torch.ones(T), r"the shape is (1,), not (1, 1)"),
        (lambda T: torch.ones(T, T, dtype=torch.int64), "the numbers are torch.int64"),
        (
            lambda T: torch.full((T, T), math.nan),
            "expected (1, 1) [[1.0]]\ngot      (1, 1) [[nan]]",
        ),
        (lambda T: torch.ones(T, T, device="meta"), "on the device meta, not on cpu"),
        (dict, "fading_weights(1): it raised TypeError"),
        (endless, "it did not end within 0.5 seconds"),
    ],
)
def test_no_answer_ends_the_notebook(answer, told, monkeypatch):
    monkeypatch.setattr(examining, "SECONDS", 0.5)
    result = check(NAME, answer)
    assert repr(result).startswith("wrong: ")
    assert told in result.about
    assert all(len(line) < 400 for line in result.about.splitlines())


def test_on_a_busy_machine_an_answer_has_its_seconds_of_the_processor(monkeypatch):
    """Who waits for a core is not endless; who waits for ever is ended none the less."""
    monkeypatch.setattr(examining, "SECONDS", 0.2)
    reference = checking.find(NAME).reference

    def waits(seconds):
        return lambda T: time.sleep(seconds) or reference(T)

    assert check(NAME, waits(0.3)).state == "passed"
    assert "it did not end within 0.2 seconds" in check(NAME, waits(3.0)).about


def test_where_a_class_is_wanted_another_answer_is_told_so():
    for answer in (3, checking.find("02.ByteTokenizer").reference()):
        about = check("02.ByteTokenizer", answer).about
        assert about.endswith("a class is wanted: give it without calling it")


def test_an_endless_answer_is_ended(monkeypatch):
    monkeypatch.setattr(examining, "SECONDS", 0.2)
    turns = [0]

    def count(T):
        while True:
            turns[0] += 1

    check(NAME, count)
    time.sleep(0.3)
    before = turns[0]
    time.sleep(0.1)
    assert turns[0] == before


@pytest.mark.parametrize("answer", [None, ..., lambda T: None])
def test_an_empty_answer_is_not_tried_yet(answer):
    assert repr(check(NAME, answer)) == "not tried yet"


def test_an_answer_may_be_missing_in_a_later_case():
    result = check("04.attend_in_one_pass", lambda q, k, v: v[0] if len(v) == 1 else None)
    assert "a tensor is wanted, not None (is a return missing?)" in result.about


def test_a_stub_is_known_whatever_its_comments_and_spaces(tmp_path, monkeypatch):
    source = checking.find(NAME).stub.replace("zeros(T, T)", "zeros( T,T )  # my scores")
    (tmp_path / "typed_in.py").write_text(f"import llmkit, torch\n{source}")
    monkeypatch.syspath_prepend(tmp_path)
    typed_in = import_module("typed_in")
    assert repr(check(NAME, typed_in.fading_weights)) == "not tried yet"


def test_an_unknown_name_is_answered_with_the_nearest():
    for ask in (lambda name: check(name, None), hint):
        assert "no exercise '04.fadingweights'; there are 04.fading_weights" in repr(
            ask("04.fadingweights")
        )
    assert "no exercise 'x'" in repr(check("x", 3))
    assert "no exercise '99.x'" in repr(hint("99.x"))


def test_hints_come_one_by_one_and_the_last_stays():
    checking._hints_given.clear()
    given = [repr(hint(NAME)) for _ in range(4)]
    assert [text.partition(":")[0] for text in given] == [f"hint {n} of 3" for n in (1, 2, 3, 3)]
    assert len(set(given)) == 3


def test_a_check_leaves_the_random_state_and_its_arguments():
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002

    def spoiling(q, k, v):
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
        v.zero_()
        return v[0]

    check("04.attend_in_one_pass", spoiling)
    assert check("04.attend_in_one_pass", checking.find("04.attend_in_one_pass").reference).state
    got = torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
    assert got == expected


def test_the_html_escapes_what_an_answer_says():
    page = check("04.mask_rows", ("<script>", 0, 0))._repr_html_()
    assert "<script>" not in page
    assert page.startswith("<pre")


@pytest.mark.parametrize(
    ("got", "expected", "told"),
    [
        (torch.tensor(2.0), 2.0, None),
        (np.float64(2), 2.0, None),
        (2.00001, 2.0, None),
        (2.1, 2.0, "another number"),
        (math.nan, math.nan, None),
        (2.0, 2, None),
        (True, False, "another result"),
        (1, True, "another result"),
        ("b", "a", "another result"),
        (b"b", b"a", "another result"),
        (b"a", b"a", None),
        ({"a": 1}, {"a": 2}, "at 'a': another number"),
        ({"a": 1}, {"b": 1}, "the keys are ['a'], not ['b']"),
        ([1, 2], (1, 2), None),
        ([1, 2], (1, 3), "item 1: another number"),
        ("12", (1, 2), "a tuple is wanted, not a str"),
        (10**400, 1.0, "another number"),
        (None, 1.0, "None (is a return missing?)"),
        (int, 1.0, "the class int"),
    ],
)
def test_results_are_compared_by_what_they_are(got, expected, told):
    difference = examining.compare(got, expected)
    assert difference is None if told is None else told in difference


# ----------------------------------------------------------------- mutants of the solutions

SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.LtE,
    ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
}  # fmt: skip
NAMES = {
    "tril": "triu", "triu": "tril", "maximum": "minimum", "max": "min", "min": "max",
    "exp": "neg", "sqrt": "abs", "log": "abs", "sum": "mean", "zeros": "ones", "ones": "zeros",
}  # fmt: skip


def mutations(tree):
    """Copies of a tree, each with one thing changed: an operator, a number, a name, a sign."""
    for i, node in enumerate(ast.walk(tree)):
        for change in changes(node):
            mutant = copy.deepcopy(tree)
            change(list(ast.walk(mutant))[i])
            yield ast.fix_missing_locations(mutant)


def changes(node):
    """What may be changed in a node, as functions that do it to its copy."""
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        yield lambda n: setattr(n, "op", SWAPS[type(n.op)]())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield lambda n: n.ops.__setitem__(0, SWAPS[type(n.ops[0])]())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Invert, ast.Not)):
        yield lambda n: setattr(n, "op", ast.UAdd() if isinstance(n.op, ast.USub) else ast.USub())
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield lambda n: setattr(n, "value", n.value + 1)
        yield lambda n: setattr(n, "value", n.value - 1)
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield lambda n: setattr(n, "value", not n.value)
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield lambda n: setattr(n, "attr", NAMES[n.attr])


DEFINITIONS = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def is_constant(node):
    return isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "").isupper()


def solutions(number):
    """Each exercise's solution: its tree, and what of the notebook it stands on."""
    around = {"__builtins__": builtins, "__name__": "solutions"}
    for cell in notebook(number).cells:
        if cell.cell_type != "code" or "setup" in tags(cell) or "exercise" in tags(cell):
            continue
        tree = ast.parse(cell.source)
        defined = [node for node in tree.body if isinstance(node, DEFINITIONS)]
        if "solution" not in tags(cell):
            for node in tree.body:
                if node in defined or is_constant(node):
                    with suppress(NameError):  # made of what the notebook computed
                        exec(compile(ast.Module([node], []), "<notebook>", "exec"), around)
        elif found := re.search(r'check\("([\w.]+)", (\w+)\)', cell.source):
            answers = [node for node in defined if getattr(node, "name", None) == found[2]]
            yield found[1], ast.Module(answers, []), found[2], around


@pytest.mark.parametrize("number", NUMBERS)
def test_mutants_of_the_solutions_are_caught(number, monkeypatch):
    made, alive = 0, []
    for name, tree, answer, around in solutions(number):
        if not tree.body:  # the answer is a value
            continue
        space = dict(around)
        exec(compile(tree, "<solution>", "exec"), space)
        monkeypatch.undo()  # the first use of an optimizer takes PyTorch some seconds
        assert check(name, space[answer]).state == "passed"  # or a mutant might fail with it
        monkeypatch.setattr(examining, "SECONDS", 1.0)
        monkeypatch.setattr(examining, "_mistakes", lambda *_: [])  # the state is all that counts
        for mutant in mutations(tree):
            made += 1
            space = dict(around)
            try:
                exec(compile(mutant, "<mutant>", "exec"), space)
            except Exception:  # noqa: S112
                continue  # it does not even run
            if check(name, space[answer]).state == "passed":
                alive.append((name, ast.unparse(mutant)))
    known = import_module(f"wrong_{number}").EQUIVALENT
    print(f"notebook {number}: {made - len(alive)} of {made} mutants caught")
    assert made >= 10
    left = [code for name, code in alive if not any(part in code for part in known.get(name, ()))]
    assert left == []


def test_a_check_says_so_where_the_right_answer_fails(monkeypatch):
    """On a machine so busy that even that takes too long."""
    slow = checking.find(NAME)
    monkeypatch.setattr(examining, "SECONDS", 0.1)
    monkeypatch.setattr(checking, "find", lambda name: replace(slow, reference=endless))
    assert repr(check(NAME, lambda T: torch.ones(T, T))).startswith("not checked: the right answer")
