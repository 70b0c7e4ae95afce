"""A GPT with int8 weights as one ONNX graph that writes quickly: what the page runs.

    ids (T,), keys and values (L, H, S, D)   the next T tokens, and what the S before them left
    logits (T, V)                            float32
    attention.0 ...                          a layer's weights, each (H, T, S + T)
    new_keys, new_values (L, H, T, D)        to be put after the S

Each weight is a byte times the scale of its row, as in ``int8``; onnxruntime makes floats of them
once, while it loads, so that only the file is small. Attention is the plain product, because its
weights are to be seen. Written node by node: the exporter of ``onnx`` would give neither cache nor
weights.

Shapes: T tokens, S tokens before them, L layers, H heads, D features a head, V vocabulary.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmkit.attention import rotary_table
from llmkit.deploy import int8
from llmkit.files import as_path
from llmkit.model import GPT

OPSET, IR = 20, 9  # 20 has Gelu


def write_graph(model: GPT, path: str | Path) -> Path:
    """Write the graph of a model that `int8.to_int8` made to a file; returns the path.

    Raises ImportError without the package onnx, ValueError for a model that is not int8.
    """
    path = as_path(path)
    if not int8.is_int8(model):
        raise ValueError("the model has no int8 weights: give what int8.to_int8 makes of it")
    try:
        import onnx
    except ImportError:
        raise ImportError("this needs onnx: pip install 'llmkit[export]'") from None
    path.write_bytes(_Graph(model, onnx).proto().SerializeToString())
    return path


class _Graph:
    """The nodes so far; a method adds some and gives the name of what they make."""

    def __init__(self, model: GPT, onnx: Any) -> None:
        self.onnx, self.config = onnx, model.config
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.model, self.found = model, int8.tensors(model)

    def proto(self) -> Any:
        """The whole model."""
        c, helper, types = self.config, self.onnx.helper, self.onnx.TensorProto
        past = (c.n_layer, c.n_head, "S", c.head_size)
        heads = (c.n_layer, c.n_head, "T", c.head_size)
        inputs = {"ids": ("T",), "keys": past, "values": past}
        outputs: dict[str, tuple[Any, ...]] = {"logits": ("T", c.vocab_size)}
        outputs |= {f"attention.{layer}": (c.n_head, "T", "S+T") for layer in range(c.n_layer)}
        outputs |= {"new_keys": heads, "new_values": heads}
        self.forward()
        info = helper.make_tensor_value_info
        ids = {"ids": types.INT64}
        graph = helper.make_graph(
            self.nodes,
            "gpt",
            [info(name, ids.get(name, types.FLOAT), shape) for name, shape in inputs.items()],
            [info(name, types.FLOAT, shape) for name, shape in outputs.items()],
            list(self.constants.values()),
        )
        opset = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(graph, opset_imports=opset, ir_version=IR, producer_name="llmkit")
        self.onnx.checker.check_model(made)
        return made

    # ------------------------------------------------------------------------------- the model

    def forward(self) -> None:
        """ids, keys, values -> all outputs; step by step what `GPT.forward` does."""
        c = self.config
        zero, one = self.constant("zero", np.int64(0)), self.constant("one", np.int64(1))
        S = self.add("Gather", self.add("Shape", "keys"), self.constant("two", np.int64(2)))
        T = self.add("Gather", self.add("Shape", "ids"), zero)
        stop = self.add("Add", S, T)
        here = self.add("Range", S, stop, one)  # (T,): the places of the new tokens
        there = self.add("Range", zero, stop, one)  # (S + T,): those that they may look at
        first = self.constant("first", np.array([0], np.int64))
        last = self.constant("last", np.array([1], np.int64))
        column = self.add("Unsqueeze", here, last)  # (T, 1)
        row = self.add("Unsqueeze", there, first)  # (1, S + T)
        self.seen = self.add("LessOrEqual", row, column)  # (T, S + T)
        if c.position == "rotary":
            tables = rotary_table(0, c.block_size, c.head_size, torch.zeros(()))
            self.cos, self.sin = (
                self.add("Gather", self.floats(name, table), here)  # (T, D/2)
                for name, table in zip(("cos", "sin"), tables, strict=True)
            )
        x = self.add("Gather", self.weight("wte.weight"), "ids")  # (T, C)
        if c.position != "rotary":
            learned = c.position == "learned"
            table = self.found["wpe.weight"] if learned else self.model.waves
            x = self.add("Add", x, self.add("Gather", self.floats("places", table), here))
        keys, values = [], []
        for layer in range(c.n_layer):
            at = f"h.{layer}."
            y = self.norm(x, at + "ln_1") if c.norm_first else x
            y, k, v = self.attention(y, layer)
            keys.append(k)
            values.append(v)
            x = self.add("Add", x, y)
            if not c.norm_first:
                x = self.norm(x, at + "ln_1")
            y = self.norm(x, at + "ln_2") if c.norm_first else x
            x = self.add("Add", x, self.feed_forward(y, at))
            if not c.norm_first:
                x = self.norm(x, at + "ln_2")
        if c.norm_first:
            x = self.norm(x, "ln_f")
        self.add("MatMul", x, self.transposed(self.head()), out="logits")
        self.add("Concat", *keys, out="new_keys", axis=0)
        self.add("Concat", *values, out="new_values", axis=0)

    def attention(self, x: str, layer: int) -> tuple[str, str, str]:
        """x (T, C) -> what a layer adds to it (T, C), its keys and its values (1, H, T, D)."""
        c, at = self.config, f"h.{layer}.attn."
        three = self.linear(x, at + "c_attn")  # (T, 3C)
        shape = self.constant("heads", np.array([-1, 3, c.n_head, c.head_size], np.int64))
        heads = self.add("Transpose", self.add("Reshape", three, shape), perm=[1, 2, 0, 3])
        q, k, v = self.split(heads, 3, axis=0)  # (1, H, T, D) each
        if c.position == "rotary":
            q, k = self.turned(q), self.turned(k)
        this = self.constant(f"layer.{layer}", np.array([layer], np.int64))
        all_k = self.add("Concat", self.add("Gather", "keys", this), k, axis=2)  # (1, H, S + T, D)
        all_v = self.add("Concat", self.add("Gather", "values", this), v, axis=2)
        scores = self.add("MatMul", q, self.add("Transpose", all_k, perm=[0, 1, 3, 2]))
        scale = self.constant("scale", np.float32(1 / math.sqrt(c.head_size)))
        never = self.constant("never", np.float32(-np.inf))
        scores = self.add("Where", self.seen, self.add("Mul", scores, scale), never)
        weights = self.add("Softmax", scores, axis=-1)  # (1, H, T, S + T)
        axis = self.constant("first", np.array([0], np.int64))
        self.add("Squeeze", weights, axis, out=f"attention.{layer}")
        out = self.add("Transpose", self.add("MatMul", weights, all_v), perm=[0, 2, 1, 3])
        flat = self.constant("flat", np.array([-1, c.n_embd], np.int64))
        return self.linear(self.add("Reshape", out, flat), at + "c_proj"), k, v

    def turned(self, x: str) -> str:
        """`attention.rotate`: (1, H, T, D) -> (1, H, T, D)."""
        a, b = self.split(x, 2, axis=3)
        cos, sin = self.cos, self.sin
        left = self.add("Sub", self.add("Mul", a, cos), self.add("Mul", b, sin))
        right = self.add("Add", self.add("Mul", a, sin), self.add("Mul", b, cos))
        return self.add("Concat", left, right, axis=3)

    def feed_forward(self, x: str, at: str) -> str:
        """x (T, C) -> (T, 4C) -> (T, C)."""
        inner = self.linear(x, at + "mlp.c_fc")
        if self.config.activation == "gelu":
            inner = self.add("Gelu", inner, approximate="tanh")
        else:
            inner = self.add("Relu", inner)
        return self.linear(inner, at + "mlp.c_proj")

    def linear(self, x: str, name: str) -> str:
        """x (T, n) -> (T, m), the weight (m, n) as PyTorch keeps it."""
        y = self.add("MatMul", x, self.transposed(self.weight(name + ".weight")))
        if name + ".bias" not in self.found:
            return y
        return self.add("Add", y, self.floats(name + ".bias"))

    def norm(self, x: str, name: str) -> str:
        parts = [self.floats(name + ".weight")]
        if name + ".bias" in self.found:
            parts.append(self.floats(name + ".bias"))
        return self.add("LayerNormalization", x, *parts, axis=-1, epsilon=1e-5)

    def head(self) -> str:
        """The output layer's weight (V, C), which may be the embedding's."""
        return self.weight("wte.weight" if self.config.tie_weights else "lm_head.weight")

    # ------------------------------------------------------------------------- nodes, constants

    def add(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """A node with one output, and the name of that."""
        out = out or f"{kind}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [out], **attributes))
        return out

    def split(self, x: str, parts: int, axis: int) -> list[str]:
        names = [f"{x}.{part}" for part in range(parts)]
        node = self.onnx.helper.make_node("Split", [x], names, axis=axis, num_outputs=parts)
        self.nodes.append(node)
        return names

    def constant(self, name: str, value: Any) -> str:
        if name not in self.constants:
            made = self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
            self.constants[name] = made
        return name

    def floats(self, name: str, values: Tensor | None = None) -> str:
        """A weight that is float32 in an int8 model too, or a table of floats."""
        values = self.found[name] if values is None else values
        return self.constant(name, values.detach().float().cpu().numpy())

    def weight(self, name: str) -> str:
        """A matrix of bytes as floats; made once, by whoever asks first."""
        floats = name + ".floats"
        if name not in self.constants:
            stored, scale = self.found[name], self.found[name + int8.SCALE]
            bytes_ = self.constant(name, stored.cpu().numpy())
            as_float = self.add("Cast", bytes_, to=self.onnx.TensorProto.FLOAT)
            self.add("Mul", as_float, self.floats(name + int8.SCALE, scale), out=floats)
        return floats

    def transposed(self, weight: str) -> str:
        return self.add("Transpose", weight, perm=[1, 0])
