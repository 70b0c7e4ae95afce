"""Schematic drawings for the notebooks, in one style: `Sketch` draws boxes and arrows as SVG.

    drawings.queries_keys_values()

Each function returns one drawing, which a cell shows by ending in it; they stand in modules by
subject. tests/test_drawings.py holds that no word leaves its drawing or covers another.
"""

from llmkit.drawings.attention import queries_keys_values
from llmkit.drawings.evaluation import strided_windows
from llmkit.drawings.finetune import low_rank_adapter
from llmkit.drawings.generation import kv_cache

__all__ = ["kv_cache", "low_rank_adapter", "queries_keys_values", "strided_windows"]
