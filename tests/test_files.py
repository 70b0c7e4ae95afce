"""files: the old content or the new one, and nothing beside it."""

import os
import signal
import subprocess
import sys

import pytest

from llmkit.checkpoint import replacing


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
        "import os, signal, sys; from llmkit.checkpoint import replacing\n"
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
