"""Folders that transformers saved, changed: for the tests of what reads them."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file


def rewrite(folder: Path, change) -> None:
    """Change the tensors of a saved model in place."""
    tensors = {name: t.clone() for name, t in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def set_config(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
