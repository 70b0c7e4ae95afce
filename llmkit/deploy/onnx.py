"""ONNX: a model as one file that runs without PyTorch, and its way back into llmkit.

The file maps ids (B, T), int64, to logits (B, T, V), float32, for any B and any T up to block_size.
What is lost: the key-value cache, so that each new token of `generate` reads its window again; the
training; other number formats than float32. Where it is kept is told in ``export``.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.arguments import check_type
from llmkit.deploy.int8 import check, quiet
from llmkit.files import as_path
from llmkit.model import GPTConfig

LARGE = 1_500_000_000  # bytes of weights from which they need a file beside: a message ends at 2 GB


def write_onnx(model: nn.Module, path: str | Path) -> Path:
    """Write a GPT, as it predicts in eval mode and float32, to a file; returns the path.

    Beyond 1.5 GB the weights go to a second file, named as the first and ``.data``. Raises
    ImportError without the packages; TypeError and ValueError as `int8.to_int8`.
    """
    gpt, path = deepcopy(check(model)), as_path(path)
    try:
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError:
        raise ImportError("ONNX needs onnx and onnxscript: pip install 'llmkit[export]'") from None
    gpt = gpt.cpu().float().eval().requires_grad_(False)
    room = gpt.config.block_size
    ids = torch.zeros((2, min(2, room)), dtype=torch.int64)  # sizes 0 and 1 would be taken for all
    axes: dict[int, Any] = {0: "batch"}
    if room > 1:
        axes[1] = torch.export.Dim("time", min=1, max=room)
    with quiet("torch.onnx"):  # of torchvision, which is absent, and of its own deprecated calls
        program = torch.onnx.export(
            gpt,
            (ids,),
            input_names=["ids"],
            output_names=["logits"],
            dynamic_shapes=(axes,),
            dynamo=True,
            verbose=False,
        )
        assert program is not None  # noqa: S101 - for mypy: with dynamo there is one
        _forget_origin(program.model)
        large = 4 * gpt.num_parameters() > LARGE
        program.save(path, external_data=large)
    return path


class OnnxModel(nn.Module):
    """The model in an ONNX file, run by onnxruntime on the CPU: what `evaluate` and `generate` take
    for a model.

    path: the file. config: of the GPT that it was made of.

    Raises FileNotFoundError for no file, ImportError without onnxruntime, ValueError for a file
    that is damaged or another model.
    """

    def __init__(self, path: str | Path, config: GPTConfig):
        super().__init__()
        path = as_path(path)
        check_type("config", config, GPTConfig)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}: export the model first")
        try:
            import onnxruntime
        except ImportError:
            raise ImportError("this needs onnxruntime: pip install 'llmkit[export]'") from None
        self.config = config
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors only
        # Threads that spin after each run would keep a core from PyTorch, and from a server.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception:  # onnxruntime's have no common class
            raise ValueError(f"{path} is damaged or no ONNX file: export the model again") from None
        inputs = [(each.name, each.type) for each in self.session.get_inputs()]
        vocab_size = [each.shape[-1] for each in self.session.get_outputs()]
        if inputs != [("ids", "tensor(int64)")] or vocab_size != [config.vocab_size]:
            raise ValueError(f"{path} is another model than its config.json says")

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> logits (B, T, V), float32; ValueError where ids are not (B, T), too many,
        or not in the vocabulary (of which -1 would be the last, to onnxruntime)."""
        V, room = self.config.vocab_size, self.config.block_size
        if ids.dim() != 2 or ids.numel() == 0:
            raise ValueError(f"ids must be (B, T) and not empty; their shape is {tuple(ids.shape)}")
        if ids.size(1) > room:
            raise ValueError(f"{ids.size(1)} tokens do not fit into block_size {room}")
        for end in ids.aminmax():
            if not 0 <= end.item() < V:
                raise ValueError(f"id {end} is outside the vocabulary: vocab_size is {V}")
        [logits] = self.session.run(["logits"], {"ids": ids.long().cpu().numpy()})
        return torch.from_numpy(logits).to(ids.device)


def _forget_origin(model: Any) -> None:
    """Remove what the exporter notes of our source: paths of this machine, half the file."""
    for part in (model, model.graph, *model.graph.all_nodes(), *model.graph.initializers.values()):
        part.metadata_props.clear()
