"""Schematic drawings for the notebooks, in one style: `Sketch` draws boxes and arrows as SVG.

    drawings.queries_keys_values()

Each function returns one drawing, which a cell shows by ending in it; they stand in modules by
subject. tests/test_drawings.py holds that no word leaves its drawing or covers another.
"""

from llmkit.drawings.attention import queries_keys_values
from llmkit.drawings.deployment import request_to_worker
from llmkit.drawings.projects import fill_in_the_middle

__all__ = ["fill_in_the_middle", "queries_keys_values", "request_to_worker"]
