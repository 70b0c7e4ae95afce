"""files: one sentence for whatever is read; the old content or the new one and nothing beside."""

import os
import signal
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from llmkit import files
from llmkit.files import replacing
from llmkit.model import GPTConfig


def write(path, content: str) -> None:
    with replacing(path) as fresh:
        fresh.write_text(content)


def test_a_file_is_made_and_then_replaced(tmp_path):
    for content in ("old", "new"):
        write(tmp_path / "a.txt", content)
        assert (tmp_path / "a.txt").read_text() == content
        assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_earlier_file_and_nothing_else(tmp_path):
    write(tmp_path / "a", "old")
    with pytest.raises(UnicodeEncodeError):  # half of the content is written by then
        write(tmp_path / "a", "new" * 100_000 + "\ud800")
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(broken, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    write(tmp_path / "a", "old")
    monkeypatch.setattr(os, broken, full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_the_content_is_on_the_disk_before_the_name_leads_to_it(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.fstat(file).st_ino), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("renamed"), replace(*names)))
    write(tmp_path / "a", "new")
    assert done == [(tmp_path / "a").stat().st_ino, "renamed"]


def test_a_killed_program_leaves_the_earlier_file(tmp_path):
    write(tmp_path / "a", "old")
    code = (
        "import os, signal, sys; from llmkit.files import replacing\n"
        "with replacing(sys.argv[1]) as fresh:\n"
        "    fresh.write_text('ne')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"])
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_text() == "old"
    write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"


def test_a_link_goes_on_leading_to_the_file(tmp_path):
    write(tmp_path / "a", "old")
    (tmp_path / "link").symlink_to("a")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_text() == "new"


# Reading


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[" * 200_000 + b"]" * 200_000, "no JSON object"),
        (b'{"a":' * 200_000, "no JSON object"),
        (b'{"a": NaN}', "no JSON object"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON object"),
        (b"[1]", "no JSON object"),
        (b"", "no JSON object"),
    ],
    ids=["deep lists", "deep objects", "NaN", "5000 digits", "a list", "empty"],
)
def test_json_is_an_object_or_one_sentence(content, told, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=told) as error:
        files.read_json(tmp_path / "a.json")
    assert str(error.value).startswith(f"{tmp_path / 'a.json'}: ")


def test_json_may_have_a_byte_order_mark(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_text('{"a": "ä"}', encoding)
        assert files.read_json(tmp_path / "a.json") == {"a": "ä"}


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_json_in_another_encoding_is_told_so(encoding, tmp_path):
    (tmp_path / "a.json").write_text('{"a": "ä", "b": "é"}', encoding)
    with pytest.raises(ValueError, match=r"a\.json is not UTF-8 but probably latin-1; make a copy"):
        files.read_json(tmp_path / "a.json")


def test_a_file_too_large_for_its_kind_is_not_read(tmp_path):
    with open(tmp_path / "a.json", "wb") as file:
        file.truncate(1 << 40)  # it has no blocks on the disk
    with pytest.raises(ValueError, match="1,099,511,627,776 bytes are too many"):
        files.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["n_layer", "dropout", "bias", "position"])
@pytest.mark.parametrize("value", ["4", True, 1.5, float("inf"), 10**400, None, [], {}])
def test_a_field_of_another_type_is_named(name, value):
    known = asdict(GPTConfig(7, 5))
    if type(value) is type(known[name]) and value != float("inf"):
        return
    with pytest.raises(ValueError, match=name) as error:
        files.make(GPTConfig, known | {name: value})
    assert len(str(error.value)) < 200


def test_a_configuration_comes_back_and_nothing_else_is_in_it():
    config = GPTConfig(7, 5, dropout=0)
    assert files.make(GPTConfig, asdict(config)) == config
    assert files.make(GPTConfig, {"vocab_size": 7, "block_size": 5}) == GPTConfig(7, 5)
    for values in ({"vocab_size": 7}, asdict(config) | {"depth": 1}):
        with pytest.raises(ValueError, match="field"):
            files.make(GPTConfig, values)


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), TypeError(), RuntimeError("a\nb"), RecursionError(), MemoryError(),
     OverflowError(), UnicodeDecodeError("utf-8", b"", 0, 1, "x"), PermissionError(13, "denied")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_every_error_becomes_one_sentence(error):
    with pytest.raises(ValueError, match=r"^a/b: [^\n]+choose another file$"), files.reading("a/b"):
        raise error


def test_what_says_enough_is_left_alone():
    for error in (FileNotFoundError("a"), ImportError("a"), KeyboardInterrupt()):
        with pytest.raises(type(error)), files.reading("a/b"):
            raise error
    with pytest.raises(ValueError, match=r"^a/b: one$"), files.reading("a"), files.reading("a/b"):
        raise ValueError("one")


def test_tensors_are_compared_with_what_is_wanted():
    files.check_weights({"a": torch.ones(2, 3)}, {"a": (2, 3)})
    nan = torch.ones(2, 3)
    nan[1, 1] = float("nan")
    for found, told in [
        ({"a": torch.ones(3, 2)}, r"a is .3, 2., but"),
        ({"a": torch.ones(2, 3), "b": torch.ones(1)}, "no weight b"),
        ({}, "a is missing"),
        ({"a": torch.ones(2, 3).int()}, "takes floats"),
        ({"a": nan}, "not finite"),
        ({"a": torch.full((2, 3), -float("inf"))}, "not finite"),
    ]:
        with pytest.raises(ValueError, match=told):
            files.check_weights(found, {"a": (2, 3)})
