"""A view to mark answers with (notebook 13); all others are in `llmkit.widgets`."""

from collections.abc import Sequence
from html import escape

import ipywidgets

from llmkit import plots
from llmkit.arguments import check_each
from llmkit.widgets import PRE, View, picture_box


class Rater(View):
    """Answers one after the other, and three buttons to mark them: `.ratings` is what was marked.

    pairs: (prompt, answer) each. options: the marks, best first. `rate` does what a button does.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        options: Sequence[str] = ("good", "fair", "bad"),
    ):
        check_each("pairs", pairs, tuple, list, wanted="pairs (prompt, answer)")
        check_each("options", options, str)
        if not pairs:
            raise ValueError("pairs is empty, nothing to rate: give at least one (prompt, answer)")
        self.pairs, self.options = list(pairs), tuple(options)
        self.ratings: list[str] = []
        self.shown, self.picture = ipywidgets.HTML(), picture_box()
        self.buttons = [ipywidgets.Button(description=option) for option in self.options]
        for button in self.buttons:
            # Never disabled, not even at the end: the focus would be lost with the button.
            button.on_click(lambda button: self.rate(button.description))
        super().__init__([], [self.shown, ipywidgets.HBox(self.buttons), self.picture])

    def rate(self, option: str) -> None:
        """Mark the answer that is shown, and show the next; after the last one nothing happens."""
        if option not in self.options:
            raise ValueError(f"rate {' or '.join(self.options)}, not {option!r}")
        if len(self.ratings) < len(self.pairs):
            self.ratings.append(option)
            self.update()

    def update(self) -> None:
        n, of = len(self.ratings), len(self.pairs)
        text = "\n".join(self.pairs[n]) if n < of else "Thank you: all are rated."
        self.shown.value = PRE.format(escape(text))
        counts = [self.ratings.count(option) for option in self.options] + [of - n]
        names, title = [*self.options, "not rated yet"], f"{n} of {of} answers are rated"
        self.picture.value = plots.bars(names, counts, title, xlabel="answers").png()
