"""Schematic drawings for the notebooks, in one style: `Sketch` draws boxes and arrows as SVG.

    drawings.queries_keys_values()

Each function returns one drawing, which a cell shows by ending in it; they stand in modules by
subject. tests/test_drawings.py holds that no word leaves its drawing or covers another.
"""

from llmkit.drawings.attention import heads, queries_keys_values
from llmkit.drawings.deployment import joining_and_leaving, request_to_worker
from llmkit.drawings.evaluation import strided_windows
from llmkit.drawings.finetune import low_rank_adapter
from llmkit.drawings.generation import kv_cache
from llmkit.drawings.gpt2 import weight_names
from llmkit.drawings.modern import modern_changes
from llmkit.drawings.networks import autograd_graph, context_window
from llmkit.drawings.pipeline import pipeline
from llmkit.drawings.projects import fill_in_the_middle
from llmkit.drawings.responsible import clip_and_noise, exposure_rank, paired_probe
from llmkit.drawings.scale import accumulation, checkpointing
from llmkit.drawings.subwords import merge_tree
from llmkit.drawings.training import training_loop
from llmkit.drawings.transformer import block, gpt_architecture, norm_places, rotary_turns

__all__ = [
    "accumulation",
    "autograd_graph",
    "block",
    "checkpointing",
    "clip_and_noise",
    "context_window",
    "exposure_rank",
    "fill_in_the_middle",
    "gpt_architecture",
    "heads",
    "joining_and_leaving",
    "kv_cache",
    "low_rank_adapter",
    "merge_tree",
    "modern_changes",
    "norm_places",
    "paired_probe",
    "pipeline",
    "queries_keys_values",
    "request_to_worker",
    "rotary_turns",
    "strided_windows",
    "training_loop",
    "weight_names",
]
