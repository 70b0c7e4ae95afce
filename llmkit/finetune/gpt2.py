"""GPT-2's layout: how transformers names and turns the weights that our GPT has, and its config.

Our GPT has GPT-2's names. The differences: names may stand under "transformer.", and under what
torch.compile and DistributedDataParallel put before them; the matrix of a Conv1D is (in, out) where
a Linear's is (out, in); old files hold the causal mask beside the weights; the output layer is not
stored, as it is the token embedding. Files and folders are ``pretrained``'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from llmkit.arguments import check_number, check_type, shown
from llmkit.checkpoint import outline
from llmkit.evaluation import unwrapped
from llmkit.files import check_weights
from llmkit.model import GPT, GPTConfig

TURNED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
PREFIXES = re.compile(r"((transformer|_orig_mod|module)\.)*")
MASKS = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # buffers of old files
CHOICES = {  # what makes a GPTConfig GPT-2's
    "bias": True,
    "position": "learned",
    "norm_first": True,
    "activation": "gelu",
    "tie_weights": True,
}
FIELDS = {  # our name of a number: GPT-2's
    "vocab_size": "vocab_size",
    "block_size": "n_positions",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
    "dropout": "resid_pdrop",
}
FIXED = {  # transformers' other choices: what our GPT can follow, the usual one first
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "tie_word_embeddings": (True,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}


def turn(name: str, weight: Tensor) -> Tensor:
    """From Conv1D's (in, out) to Linear's (out, in) or back, where GPT-2 has a Conv1D."""
    return weight.T if name.endswith(TURNED) else weight


def from_gpt2(tensors: dict[str, Tensor], config: GPTConfig, vocab_size: int | None = None) -> GPT:
    """A GPT of this shape, in eval mode, with a copy of the weights, given as transformers' GPT-2
    has them; of several number formats it takes the widest.

    vocab_size: how many tokens there are, where the vocabulary of `config` was padded to a round
        number. The rows beyond are of no token, and are left out.

    ValueError names a weight that is missing, unknown, of another shape or not finite. The weights
    are compared with the configuration before anything is built.
    """
    check_type("tensors", tensors, Mapping, wanted="weights by name")
    check_type("config", config, GPTConfig)
    check_number("vocab_size", vocab_size, int, optional=True, least=1)
    tensors = _by_our_names(tensors)
    head = tensors.pop("lm_head.weight", None)
    named = outline(config, tensors).named_parameters()
    check_weights(tensors, {name: turn(name, weight).shape for name, weight in named})
    if head is not None and not torch.equal(head, tensors["wte.weight"]):
        raise ValueError("lm_head.weight differs from wte.weight, which in GPT-2 are one")
    dtype = reduce(torch.promote_types, [tensor.dtype for tensor in tensors.values()])
    tensors["wte.weight"] = tensors["wte.weight"][:vocab_size]
    own = {
        name: turn(name, tensor).to(dtype, copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    model = outline(replace(config, vocab_size=len(own["wte.weight"])), own)
    model.load_state_dict(own, assign=True, strict=False)  # which has no weight for the head
    model.lm_head.weight = model.wte.weight
    return model.eval()


def to_gpt2(model: GPT) -> dict[str, Tensor]:
    """The weights as transformers' GPT-2 has them, on the CPU, where those that need not be turned
    are the model's own.

    ValueError says which choice of the model is not GPT-2's; TypeError for another class of model.
    """
    model = unwrapped(model)
    if type(model) is not GPT:
        raise TypeError(
            f"only a model of llmkit's GPT can be a GPT-2, not a {type(model).__name__}"
        )
    for name, usual in CHOICES.items():
        if (value := getattr(model.config, name)) != usual:
            raise ValueError(
                f"a GPT with {name}={value!r} is no GPT-2, which has {name}={usual!r}: "
                "keep it with llmkit.checkpoint.save"
            )
    weights = dict(model.named_parameters())
    with torch.device("meta"):  # no memory, no time
        wanted = dict(GPT(model.config).named_parameters())
    if other := sorted(weights.keys() ^ wanted.keys()):
        raise ValueError(f"the layers of this GPT were changed ({other[0]}): undo that first")
    return {
        f"transformer.{name}": turn(name, weight.detach()).cpu().contiguous()
        for name, weight in weights.items()
    }


def config_from_gpt2(fields: dict[str, Any]) -> GPTConfig:
    """Our configuration from transformers'; ValueError for one that our GPT cannot follow."""
    kind = fields.get("model_type")
    if kind != "gpt2":
        raise ValueError(f"it says model_type {shown(kind)}: llmkit loads 'gpt2' alone")
    if missing := [name for name in FIELDS.values() if name not in fields]:
        raise ValueError(f"it lacks {missing[0]}")
    for name, values in FIXED.items():
        if (value := fields.get(name, values[0])) not in values:
            raise ValueError(f"it has {name} {shown(value)}, where llmkit's GPT has {values[0]!r}")
    config = GPTConfig(**{ours: fields[theirs] for ours, theirs in FIELDS.items()})
    if (inner := fields.get("n_inner")) not in (None, 4 * config.n_embd):
        raise ValueError(
            f"it has n_inner {shown(inner)}, where llmkit's GPT has {4 * config.n_embd}"
        )
    return config


def config_to_gpt2(config: GPTConfig) -> dict[str, Any]:
    """transformers' configuration of a GPT-2 of this shape."""
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        **{name: values[0] for name, values in FIXED.items()},
    }


def _by_our_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without prefixes, and without the masks of old files."""
    named: dict[str, Tensor] = {}
    for full, tensor in tensors.items():
        name = PREFIXES.sub("", full, count=1)
        check_type(f"the weight {name} in tensors", tensor, Tensor)
        if name in named:
            raise ValueError(f"the weight {name} is there twice, under different prefixes")
        if not MASKS.fullmatch(name):
            named[name] = tensor
    return named
