"""Views that move: a loss curve that grows while a model trains, and boxes to type into.

They are made of ipywidgets (version 7 or 8) whose values are set from Python, so a cell can drive
them too: `view.text.value = "th"`. Pictures that hold still live in `plots`.
"""

import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape

import ipywidgets
import torch
from IPython import get_ipython
from IPython.display import display

from llmkit import plots
from llmkit.evaluation import device_of, eval_mode

BOX = "display:inline-block;margin:1px;padding:3px;font:14px monospace;text-align:center;color:#000"
_Image = partial(ipywidgets.Image, layout={"align_self": "flex-start"})  # it would be stretched


class View(ipywidgets.VBox):
    """A column of widgets that a notebook can keep and a test can compare.

    A plain VBox spells out what its children show; this text form never changes, and with it comes
    a picture for pages without a kernel. A subclass sets `picture`, or overrides `png`.
    """

    _ipython_display_ = None  # ipywidgets 7 would show itself through this, without the picture

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def _repr_mimebundle_(self, **_) -> dict:
        live = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        bundle = {"text/plain": repr(self), "application/vnd.jupyter.widget-view+json": live}
        png = self.png()
        return bundle | ({"image/png": b64encode(png).decode()} if png else {})

    def png(self) -> bytes:
        """The view as it stands, as the bytes of a PNG file; empty if there is nothing to see."""
        return bytes(self.picture.value)


class LivePlot(View):
    """A callback for `train`: the loss curve as it grows, with the latest sample beneath.

    It shows itself once the run is measured or sampled, and draws what came since at most every
    half second, for at most a tenth of the time, and at the end. options: `plots.loss_curves`'s.
    """

    def __init__(self, title: str = "The loss while the model learns", **options):
        self.title, self.options = title, options
        self.picture, self.sample = _Image(), ipywidgets.HTML()
        self.handle, self.rest_until = None, 0.0
        super().__init__([self.picture, self.sample])

    def __call__(self, run) -> None:
        started = time.monotonic()
        if not (run.done or (started >= self.rest_until and (run.evaluated or run.sample))):
            return
        self.picture.value = plots.loss_curves(run.history, self.title, **self.options).png()
        for _, sample in run.history.samples[-1:]:
            self.sample.value = f"<pre style='white-space:pre-wrap'>{escape(sample)}</pre>"
        if self.handle is None and get_ipython() is not None:
            self.handle = display(self, display_id=True)
        if run.done and self.handle is not None:
            self.handle.update(self)  # so that the notebook keeps the last picture, not the first
            self.handle = None  # another run will be shown where it runs
        self.rest_until = started + max(0.5, 10 * (time.monotonic() - started))


class _TextView(View):
    """A text box, what `show` makes of its text, and a line on what that is, or what is wrong."""

    def __init__(self, text: str, result: ipywidgets.DOMWidget):
        self.text = ipywidgets.Textarea(value=text, rows=2, layout={"width": "95%"})
        self.result, self.nothing, self.message = result, result.value, ipywidgets.HTML()
        super().__init__([self.text, self.result, self.message])
        self.text.observe(self._update, names="value")
        self._update()

    def _update(self, _change=None) -> None:
        try:
            message, self.result.value = self.show(self.text.value)
        except ValueError as error:
            message, self.result.value = str(error), self.nothing
        self.result.layout.display = None if len(self.result.value) else "none"
        self.message.value = escape(message)


class TokenExplorer(_TextView):
    """Type a text and see its tokens, each above its id."""

    def __init__(self, tokenizer, text: str = ""):
        self.tokenizer = tokenizer
        super().__init__(text, ipywidgets.HTML())

    def show(self, text: str) -> tuple[str, str]:
        self.tokens, boxes = [], ""
        ids = self.tokenizer.encode(text).tolist()
        self.tokens = [(self.tokenizer.decode([i]), i) for i in ids[:500]]  # enough to look at
        for n, (token, i) in enumerate(self.tokens):
            token, tint = escape(plots.visible(token)), plots.TINTS[n % len(plots.TINTS)]
            boxes += f"<div style='{BOX};background:{tint}'>{token}<br><small>{i}</small></div>"
        return f"{len(text)} characters, {len(ids)} tokens", boxes

    def png(self) -> bytes:
        tokens, ids = [token for token, _ in self.tokens], [i for _, i in self.tokens]
        return plots.token_boxes(tokens, ids, self.message.value).png() if ids else b""


class MergeExplorer(TokenExplorer):
    """The same with a slider: the text's tokens after the first so many merges of a BPETokenizer.

    merges: how many at first; None: all.
    """

    def __init__(self, tokenizer, text: str = "", merges: int | None = None):
        last = len(tokenizer.merges)
        start = last if merges is None else merges
        about = {"description": "merges", "continuous_update": False, "layout": {"width": "95%"}}
        self.whole, self.merges = tokenizer, ipywidgets.IntSlider(start, 0, last, **about)
        super().__init__(tokenizer, text)
        self.children = [self.text, self.merges, self.result, self.message]
        self.merges.observe(self._update, names="value")

    def show(self, text: str) -> tuple[str, str]:
        self.tokenizer = self.whole.first(self.merges.value)
        message, boxes = super().show(text)
        return f"{message} after {self.merges.value} merges", boxes


class NextTokenExplorer(_TextView):
    """Type the start of a text and see what a model expects next: its 15 likeliest tokens.

    model: a module like `GPT` or `NGram`, or a function from ids (T,) to probabilities (V,).
    """

    def __init__(self, model, tokenizer, text: str):
        self.model, self.tokenizer, self.picture = model, tokenizer, _Image()
        super().__init__(text, self.picture)

    def probabilities(self, text: str) -> torch.Tensor:
        """The chance of each token to come next: (V,)."""
        ids = self.tokenizer.encode(text)
        if len(ids) == 0:
            raise ValueError("type a character or more: a model predicts from what it has read")
        if not hasattr(self.model, "config"):
            return torch.as_tensor(self.model(ids))
        ids = ids[-self.model.config.block_size :].to(device_of(self.model))
        with torch.no_grad(), eval_mode(self.model):
            return self.model(ids[None])[0, -1].float().softmax(-1).cpu()

    def show(self, text: str) -> tuple[str, bytes]:
        p = self.probabilities(text)
        chances, ids = p.topk(min(15, len(p)))
        tokens = [self.tokenizer.decode([i]) for i in ids.tolist()]
        start, best = plots.visible(text[-20:]), plots.visible(tokens[0])
        title = f"After “{start}” the model expects “{best}” most of all"
        axes = {"xlabel": "probability", "ylabel": "next token", "fmt": "{:.1%}"}
        message = f"the {len(tokens)} likeliest of {len(p)} tokens: {chances.sum():.1%} of all"
        return message, plots.bars(tokens, chances, title, **axes).png()


class AttentionExplorer(View):
    """Choose a layer and a head of weights (L, H, T, T) or {layer: (H, T, T)} over T characters."""

    def __init__(self, weights, text: Sequence[str]):
        self.layers = weights if isinstance(weights, Mapping) else dict(enumerate(weights))
        self.tokens, self.picture = text, _Image()
        self.layer = ipywidgets.Dropdown(options=list(self.layers), description="layer")
        self.head = ipywidgets.IntSlider(max=0, description="head")
        super().__init__([self.layer, self.head, self.picture])
        self.layer.observe(self._update, names="value")
        self.head.observe(self._update, names="value")
        self._update()

    def _update(self, _change=None) -> None:
        heads = self.layers[self.layer.value]
        self.head.max = len(heads) - 1
        weights = torch.as_tensor(heads[self.head.value]).float().cpu()  # (T, T)
        back = (torch.arange(len(weights)) * (1 - weights.sum(0))).mean()  # as rows sum to 1
        title = f"Layer {self.layer.value}, head {self.head.value} looks {back:.1f} positions back"
        self.picture.value = plots.attention_maps(weights, self.tokens, title).png()


class Rater(View):
    """Answers one after the other, and three buttons to mark them: `.ratings` is what was marked.

    pairs: (prompt, answer) each. options: the marks, best first. `rate` does what a button does.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], options=("good", "fair", "bad")):
        if not pairs:
            raise ValueError("there is nothing to rate: give at least one (prompt, answer)")
        self.pairs, self.options, self.ratings = list(pairs), tuple(options), []
        self.shown, self.picture = ipywidgets.HTML(), _Image()
        self.buttons = [ipywidgets.Button(description=option) for option in self.options]
        for button in self.buttons:
            button.on_click(lambda button: self.rate(button.description))
        super().__init__([self.shown, ipywidgets.HBox(self.buttons), self.picture])
        self._update()

    def rate(self, option: str) -> None:
        """Mark the answer that is shown, and show the next."""
        if option not in self.options:
            raise ValueError(f"rate {' or '.join(self.options)}, not {option!r}")
        if len(self.ratings) < len(self.pairs):
            self.ratings.append(option)
            self._update()

    def _update(self) -> None:
        n, of = len(self.ratings), len(self.pairs)
        text = "\n".join(self.pairs[n]) if n < of else "Thank you: all are rated."
        self.shown.value = f"<pre style='white-space:pre-wrap'>{escape(text)}</pre>"
        for button in self.buttons:
            button.disabled = n == of
        counts = [self.ratings.count(option) for option in self.options] + [of - n]
        names, title = [*self.options, "not rated yet"], f"{n} of {of} answers are rated"
        self.picture.value = plots.bars(names, counts, title, xlabel="answers").png()
