"""Schematic drawings for the notebooks, in one style: `Sketch` draws boxes and arrows as SVG.

    drawings.queries_keys_values()

Each function returns one drawing, which a cell shows by ending in it; they stand in modules by
subject. tests/test_drawings.py holds that no word leaves its drawing or covers another.
"""

from llmkit.drawings.attention import queries_keys_values
from llmkit.drawings.gpt2 import weight_names
from llmkit.drawings.subwords import merge_tree

__all__ = ["merge_tree", "queries_keys_values", "weight_names"]
