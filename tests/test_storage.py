"""Disks that are full, out of inodes, read-only or not ours: what stood there stays, the sentence
says what helps. Real file systems of a megabyte or so, so Linux and root; `pytest -m slow`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import llmkit
from llmkit import checkpoint
from llmkit.__main__ import main
from llmkit.deploy import export
from llmkit.finetune import lora, pretrained
from llmkit.scale import token_file

pytestmark = pytest.mark.slow

TOKENIZER = llmkit.CharTokenizer("abc \n")
CONFIG = llmkit.GPTConfig(vocab_size=5, block_size=8, n_layer=1, n_head=2, n_embd=64)


def mount(folder, options):
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: this needs Linux and root")


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a small file system on `tmp_path / "disk"`."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def make(options):
        mount(folder, options)
        return folder

    yield make
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def model(seed):
    torch.manual_seed(seed)
    return llmkit.GPT(CONFIG)


def adapted(seed):
    return lora.apply(model(seed), rank=64)


def save_tokens(path, seed):
    token_file.write(path, ["abc " * 100_000 * (seed + 1)], TOKENIZER)


WRITERS = {
    "checkpoint": lambda path, seed: checkpoint.save(
        path, model(seed), TOKENIZER, {"big": torch.randn(20_000, generator=None)}
    ),
    "lora": lambda path, seed: lora.save(path, adapted(seed)),
    "gpt2": lambda path, seed: pretrained.save_gpt2(model(seed), path),
    "int8": lambda path, seed: export.save_int8(path, model(seed), TOKENIZER),
    "tokens": save_tokens,
}


def contents(path):
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {
        str(file.relative_to(path.parent)): file.read_bytes() for file in files if file.is_file()
    }


def fill(folder):
    """Take all that is left of a disk, but for a few bytes."""
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_keeps_what_stood_there(disk, kind):
    folder = disk("size=9m")
    target = folder / "made"
    WRITERS[kind](target, 0)
    before = contents(target)
    fill(folder)
    with pytest.raises(OSError, match=r"free some (disk )?space") as caught:
        WRITERS[kind](target, 1)
    assert "\n" not in str(caught.value)
    assert contents(target) == before
    (folder / "filler").unlink()
    WRITERS[kind](target, 1)  # and once there is room, it is written
    assert contents(target) != before


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_without_inodes_keeps_what_stood_there(disk, kind):
    folder = disk("size=9m,nr_inodes=16")
    target = folder / "made"
    WRITERS[kind](target, 0)
    before = contents(target)
    for n in range(99):
        try:
            (folder / f"file{n}").touch()
        except OSError:
            break
    with pytest.raises(OSError, match=r"free some (disk )?space"):
        WRITERS[kind](target, 1)
    assert contents(target) == before


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_is_read_only_is_told(disk, kind):
    folder = disk("size=9m")
    target = folder / "made"
    WRITERS[kind](target, 0)
    before = contents(target)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    with pytest.raises(OSError, match=r"(?i)read-only") as caught:
        WRITERS[kind](target, 1)
    assert "disk space" not in str(caught.value)
    assert contents(target) == before


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_that_is_not_ours_is_told(tmp_path, kind):
    """As another user, since root may write everywhere."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o755)
    for parent in [folder, *folder.parents]:
        if parent != Path("/") and parent.owner() == "root" and parent != Path("/tmp"):  # noqa: S108
            parent.chmod(parent.stat().st_mode | 0o055)
    if pid := os.fork():
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert not list(folder.iterdir())
        return
    try:
        os.setuid(65534)
        WRITERS[kind](folder / "made", 0)
    except OSError as error:
        os._exit(0 if "ermission denied" in str(error) and "disk space" not in str(error) else 3)
    finally:
        os._exit(9)


def test_a_training_whose_disk_fills_up_goes_on_once_there_is_room(disk, tmp_path):
    """The last checkpoint stays whole, and --resume ends as a training that met no full disk."""
    text = tmp_path / "poem.txt"
    text.write_text("The river keeps no ledger of the rain,\nand so must I.\n" * 60)
    words = [sys.executable, "-m", "llmkit", "train", "--text", str(text), "--steps", "60"]
    quiet = dict(capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    folder = disk("size=40m")
    whole = subprocess.run([*words, "--out", str(tmp_path / "whole")], **quiet)
    assert whole.returncode == 0, whole.stderr[-500:]
    size = sum(file.stat().st_size for file in (tmp_path / "whole").rglob("*") if file.is_file())
    fill(folder)
    (folder / "filler").open("r+b").truncate(40 * 2**20 - 4096 * 40 - size // 3)
    stopped = subprocess.run([*words, "--out", str(folder / "run")], **quiet)
    assert stopped.returncode == 2
    assert "free some disk space" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    (folder / "filler").unlink()
    again = ["--resume"] if (folder / "run" / "checkpoint").exists() else ["--overwrite"]
    done = subprocess.run([*words, "--out", str(folder / "run"), *again], **quiet)
    assert done.returncode == 0, done.stderr[-500:]
    one, other = (
        place / "checkpoint/model.safetensors" for place in (folder / "run", tmp_path / "whole")
    )
    assert one.read_bytes() == other.read_bytes()
    shutil.rmtree(folder / "run")


def test_the_command_says_where_it_may_not_write(disk, capsys):
    folder = disk("size=1m,ro")
    assert main(["train", "--steps", "1", "--out", str(folder / "run")]) == 2
    told = capsys.readouterr().err
    assert "ead-only" in told
    assert "Traceback" not in told
    assert "disk space" not in told
