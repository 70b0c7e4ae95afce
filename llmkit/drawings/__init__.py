"""Schematic drawings for the notebooks, in one style: `Sketch` draws boxes and arrows as SVG.

    drawings.queries_keys_values()

Each function returns one drawing, which a cell shows by ending in it; they stand in modules by
subject. tests/test_drawings.py holds that no word leaves its drawing or covers another.
"""

from llmkit.drawings.attention import heads, queries_keys_values
from llmkit.drawings.pipeline import pipeline
from llmkit.drawings.training import training_loop

__all__ = ["heads", "pipeline", "queries_keys_values", "training_loop"]
