"""A view of how merges make tokens longer (notebook 09); all others are in `llmkit.widgets`."""

import ipywidgets

from llmkit.bpe.tokenizer import BPETokenizer
from llmkit.widgets import TokenExplorer


class MergeExplorer(TokenExplorer):
    """A `TokenExplorer` with a slider: the text's tokens after the first so many merges.

    merges: how many at first; None: all.
    """

    def __init__(self, tokenizer: BPETokenizer, text: str = "", merges: int | None = None):
        self.whole, last = tokenizer, len(tokenizer.merges)
        start = last if merges is None else merges
        look = {"continuous_update": False, "layout": {"width": "95%"}}
        self.merges = ipywidgets.IntSlider(start, 0, last, description="merges", **look)
        super().__init__(tokenizer, text, self.merges)

    def show(self, text: str) -> tuple[str, str]:
        self.tokenizer = self.whole.first(self.merges.value)
        message, boxes = super().show(text)
        return f"{message} after {self.merges.value} merges", boxes
