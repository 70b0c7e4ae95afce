"""Open models in and out of the folders in which they travel, as transformers writes them.

    config.json          the family, and its shape
    model.safetensors    the weights, or several files with an index
    tokenizer.json       if there is a tokenizer

Five families, which differ in what they choose of `ModernConfig`:

    llama        RMSNorm, rotary, SwiGLU, grouped queries (SmolLM2 is one of them)
    mistral      the same, and a sliding window
    qwen3        the same as llama, and QK-norm
    mixtral      the same as mistral, and experts
    qwen3_moe    the same as qwen3, and experts

Where they have a matrix for the queries, one for the keys and one for the values, ours stand in one
matrix, one below the other, to be one product; so do the gate of SwiGLU and what passes it.
"""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from llmkit.arguments import check_number, check_type, shown
from llmkit.bpe.tokenizer import BPETokenizer
from llmkit.evaluation import unwrapped
from llmkit.files import as_path, check_weights, get, reading, replacing, unwritable
from llmkit.finetune.folder import (
    INDEX,
    check_vocabulary,
    end_of_text,
    read_config,
    read_tokenizer,
    read_weights,
    write_json,
    write_tokenizer,
)
from llmkit.modern.model import Modern, ModernConfig

# Each family's name, and what transformers takes where config.json leaves a field out.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rms_norm_eps": 1e-6},
    "mistral": {"rms_norm_eps": 1e-6, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen3": {
        "rms_norm_eps": 1e-6,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_window_layers": 28,
    },
    "mixtral": {"rms_norm_eps": 1e-5, "num_key_value_heads": 8, "rope_theta": 1e6},
    "qwen3_moe": {"rms_norm_eps": 1e-6, "num_key_value_heads": 4, "norm_topk_prob": False},
}
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
FIELDS = {  # our name of a number that is in every config.json: theirs
    "vocab_size": "vocab_size",
    "block_size": "max_position_embeddings",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
}
FIXED: dict[str, Any] = {  # their other choices: what `Modern` can follow
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "quantization_config": None,
}
OUTER = {
    "wte.weight": "model.embed_tokens.weight",
    "ln_f.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
PARTS = {  # our weight in a block: theirs, one below the other
    "ln_1": ["input_layernorm"],
    "ln_2": ["post_attention_layernorm"],
    "attn.c_attn": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attn.c_proj": ["self_attn.o_proj"],
    "attn.q_norm": ["self_attn.q_norm"],
    "attn.k_norm": ["self_attn.k_norm"],
    "mlp.router": ["mlp.gate"],
}
FEED_FORWARD = {"c_fc": ["gate_proj", "up_proj"], "c_proj": ["down_proj"]}
MIXTRAL = {"mlp.": "block_sparse_moe.", "gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
BUFFERS = re.compile(r".*rotary_emb\.inv_freq")  # angles, in old files
META = {"format": "pt"}  # without which transformers refuses a file
FILE_BYTES = 5_000_000_000  # of weights in one file, at most: transformers' own habit


def load(folder: str | Path) -> tuple[Modern, BPETokenizer | None]:
    """An open model as our `Modern`, in eval mode, and its tokenizer, None where there is none.

    folder: as transformers saves a model of one of `FAMILIES`. Weights that need not be joined stay
        in the file until they are used. Of several number formats it takes the widest.

    Raises FileNotFoundError for no such folder, or one that lacks a file; ValueError for a model of
    another family (it is named), or of choices that `Modern` cannot follow, for a weight that is
    missing, unknown, of another shape or not finite (it is named), for a damaged file, and for a
    tokenizer that is not byte-level BPE, or does not belong to the model.
    """
    folder = as_path(folder, "folder")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    with reading(folder):
        family, config = read_config(folder, config_from_theirs, "a model")
        tokenizer = read_tokenizer(folder)
        check_vocabulary(tokenizer, config)
        return from_theirs(read_weights(folder), config, family), tokenizer


def save(
    model: Modern,
    folder: str | Path,
    tokenizer: BPETokenizer | None = None,
    file_bytes: int = FILE_BYTES,
) -> Path:
    """Write a folder that `load` and ``AutoModelForCausalLM.from_pretrained`` load; returns it.

    tokenizer: written beside the model. Without one, tokenizer files that are there already are
        left alone. file_bytes: weights beyond so many are written into several files.

    Raises ValueError for a model that is of none of the families, for weights that are not finite,
    for a tokenizer that does not belong to it, and for a folder that holds another kind of model;
    TypeError for another class of model or tokenizer; OSError where writing fails.
    """
    folder = as_path(folder, "folder")
    check_number("file_bytes", file_bytes, int, least=1)
    weights = to_theirs(model)
    config = unwrapped(model).config
    check_vocabulary(tokenizer, config)
    if (folder / "config.json").exists():
        # Another kind of model is refused, for it would be lost.
        read_config(folder, config_from_theirs, "a model")
    end = end_of_text(tokenizer, config)
    ends = {"bos_token_id": end, "eos_token_id": end}
    dtype = str(weights["model.norm.weight"].dtype).removeprefix("torch.")
    files = _in_files(weights, file_bytes)
    index = {name: file for file, names in files.items() for name in names}
    size = sum(weight.nbytes for weight in weights.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, names in files.items():
            with replacing(folder / file) as fresh:
                fresh.write_bytes(to_bytes({name: weights[name] for name in names}, META))
        if len(files) > 1:
            write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": index})
        for old in [*folder.glob("model*.safetensors"), *folder.glob(INDEX)]:
            if old.name not in ([*files, INDEX] if len(files) > 1 else files):
                old.unlink()
        write_json(folder / "config.json", {**config_to_theirs(config), **ends, "dtype": dtype})
        write_json(folder / "generation_config.json", ends)
        if tokenizer is not None:
            write_tokenizer(folder, tokenizer, config, end)
    except OSError as error:
        raise unwritable(f"{folder} cannot be written", error) from error
    return folder


def from_theirs(tensors: dict[str, Tensor], config: ModernConfig, family: str) -> Modern:
    """A model of this shape with the weights that transformers' model of a family has; ValueError
    names one that is missing, unknown, of another shape or not finite. All are compared with the
    configuration before anything is built."""
    tensors = {name: t for name, t in tensors.items() if not BUFFERS.fullmatch(name)}
    head = tensors.get("lm_head.weight") if config.tie_weights else None
    if head is not None:  # some files have it twice
        if not torch.equal(head, tensors.get(OUTER["wte.weight"], head[:0])):
            raise ValueError("lm_head.weight differs from the embedding, which are said to be tied")
        del tensors["lm_head.weight"]
    counts = {"num_hidden_layers": ("layers", config.n_layer)}
    counts["num_local_experts"] = ("experts", config.n_expert)
    for field, (part, wanted) in counts.items():  # there may be no time for as many as it says
        numbers = (re.search(rf"\.{part}\.(\d+)\.", name) for name in tensors)
        if (there := len({found[1] for found in numbers if found})) != wanted:
            raise ValueError(f"the configuration wants {field} {wanted}, but there are {there}")
    with torch.device("meta"):  # no memory, no time
        model = Modern(config)
    weights = dict(model.named_parameters())
    pieces = {name: _pieces(name, weight, config, family) for name, weight in weights.items()}
    check_weights(
        tensors,
        {
            name: (rows, *weights[ours].shape[1:])
            for ours, found in pieces.items()
            for name, rows in found.items()
        },
    )
    dtype = reduce(torch.promote_types, [tensor.dtype for tensor in tensors.values()])
    own: dict[str, Tensor] = {}
    for name, found in pieces.items():
        parts = [tensors.pop(piece) for piece in found]
        own[name] = (torch.cat(parts) if len(parts) > 1 else parts[0]).to(dtype)
    model.load_state_dict(own, assign=True, strict=False)  # a tied head has no weight of its own
    if config.tie_weights:
        model.lm_head.weight = model.wte.weight
    return model.eval()


def to_theirs(model: Modern) -> dict[str, Tensor]:
    """The weights as transformers' model of the family has them, on the CPU; errors: see `save`."""
    model = unwrapped(model)
    check_type("model", model, Modern, wanted="a Modern of llmkit.modern")
    family = family_of(model.config)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    with torch.device("meta"):
        wanted = {name: w.shape for name, w in Modern(model.config).named_parameters()}
    try:
        check_weights(weights, wanted)
    except ValueError as error:
        raise ValueError(f"this model would not load again: {error}") from None
    theirs: dict[str, Tensor] = {}
    for name, weight in weights.items():
        rows = _pieces(name, weight, model.config, family)
        theirs.update(zip(rows, weight.cpu().contiguous().split(list(rows.values())), strict=True))
    return theirs


def family_of(config: ModernConfig) -> str:
    """The first family that has all that a configuration chooses; ValueError where none has."""
    for name, usual in (("norm", "rms"), ("activation", "swiglu")):
        if (value := getattr(config, name)) != usual:
            raise ValueError(f"no open model has {name}={value!r}: they have {usual!r}")
    if config.qk_norm:
        return "qwen3_moe" if config.n_expert else "qwen3"
    return "mixtral" if config.n_expert else "mistral" if config.window else "llama"


def config_from_theirs(fields: dict[str, Any]) -> tuple[str, ModernConfig]:
    """The family and our configuration; ValueError for one that `Modern` cannot follow."""
    family = fields.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        advice = ": use llmkit.pretrained.load_gpt2" if family == "gpt2" else ""
        known = ", ".join(FAMILIES)
        raise ValueError(f"its model_type is {shown(family)}, and not one of {known}{advice}")
    fields = {**FAMILIES[family], **fields}
    fields = {name: value for name, value in fields.items() if value is not None}
    for name, usual in FIXED.items():
        if (value := fields.get(name, usual)) != usual:
            raise ValueError(f"it has {name} {shown(value)}, where llmkit's has {usual!r}")
    ours: dict[str, Any] = {name: get(fields, theirs, int) for name, theirs in FIELDS.items()}
    for name, theirs in (("n_kv_head", "num_key_value_heads"), ("head_size", "head_dim")):
        ours[name] = get(fields, theirs, int) if theirs in fields else 0
    experts = {}
    inner = "intermediate_size"
    if family in ("mixtral", "qwen3_moe"):
        count = "num_experts" if "num_experts" in fields else "num_local_experts"
        experts = {
            "n_expert": get(fields, count, int),
            "n_active": get(fields, "num_experts_per_tok", int),
        }
        inner = "moe_intermediate_size" if family == "qwen3_moe" else inner
    tied = get(fields, "tie_word_embeddings", bool) if "tie_word_embeddings" in fields else False
    return family, ModernConfig(
        **ours,
        **experts,
        n_inner=get(fields, inner, int),
        rope_base=_rope_base(fields),
        qk_norm=family.startswith("qwen3"),
        window=_window(fields, family),
        tie_weights=tied,
        norm_eps=get(fields, "rms_norm_eps", float),
    )


def config_to_theirs(config: ModernConfig) -> dict[str, Any]:
    """transformers' configuration of a model of this shape."""
    family = family_of(config)
    inner = "moe_intermediate_size" if family == "qwen3_moe" else "intermediate_size"
    window: dict[str, Any] = {"sliding_window": config.window or None}
    if config.qk_norm:
        window["use_sliding_window"] = bool(config.window)
        window["max_window_layers"] = 0 if config.window else config.n_layer
    experts: dict[str, Any] = {}
    if config.n_expert:
        experts = {"num_experts_per_tok": config.n_active, "num_local_experts": config.n_expert}
    if family == "qwen3_moe":
        experts |= {"num_experts": config.n_expert, "norm_topk_prob": True}
    return {
        "model_type": family,
        "architectures": [ARCHITECTURES[family]],
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_size,
        inner: config.n_inner,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "tie_word_embeddings": config.tie_weights,
        "attention_bias": False,
        **({} if family == "llama" else window),
        **experts,
    }


def _rope_base(fields: dict[str, Any]) -> float:
    """The base of the rotary positions; ValueError where their angles are scaled as well."""
    scaling = fields.get("rope_scaling") or {}
    rope = {**scaling, **(fields.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"its rotary positions are of type {shown(kind)}, llmkit's are plain ones")
    place = rope if "rope_theta" in rope else fields
    return get(place, "rope_theta", float) if "rope_theta" in place else 10_000.0


def _window(fields: dict[str, Any], family: str) -> int:
    """The sliding window, 0 for none; ValueError where only some layers have one."""
    if family == "llama" or "sliding_window" not in fields:
        return 0
    if family.startswith("qwen3") and not fields.get("use_sliding_window", False):
        return 0
    some = any(kind != "sliding_attention" for kind in fields.get("layer_types", []))
    if family == "qwen3" and "layer_types" not in fields:
        some = get(fields, "max_window_layers", int) > 0  # the layers before have none
    if some:
        raise ValueError("only some of its layers have a sliding window, of llmkit's all or none")
    return get(fields, "sliding_window", int)


def _pieces(name: str, weight: Tensor, config: ModernConfig, family: str) -> dict[str, int]:
    """The weights of theirs that stand one below the other in one of ours, and their rows."""
    if name in OUTER:
        return {OUTER[name]: len(weight)}
    _, layer, part = name.removesuffix(".weight").split(".", 2)
    place, _, last = part.rpartition(".")
    found = PARTS.get(part) or [f"{place}.{piece}" for piece in FEED_FORWARD[last]]
    if family == "mixtral" and place.startswith("mlp"):
        for old, new in MIXTRAL.items():
            found = [piece.replace(old, new) for piece in found]
    rows = [len(weight) // len(found)] * len(found)
    if part == "attn.c_attn":
        rows = [heads * config.head_size for heads in (config.n_head, *2 * [config.n_kv_head])]
    names = [f"model.layers.{layer}.{piece}.weight" for piece in found]
    return dict(zip(names, rows, strict=True))


def _in_files(weights: dict[str, Tensor], most: int) -> dict[str, list[str]]:
    """The names of the weights in each file, as many in each as fit."""
    groups: list[list[str]] = []
    room = 0
    for name, weight in weights.items():
        if not groups or weight.nbytes > room:
            groups.append([])
            room = most
        groups[-1].append(name)
        room -= weight.nbytes
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    total = len(groups)
    return {f"model-{n:05}-of-{total:05}.safetensors": names for n, names in enumerate(groups, 1)}
