"""Views that move: a loss curve that grows while a model trains, boxes to type into, sliders.

They are made of ipywidgets (version 7 or 8) whose values are set from Python, so a cell can drive
them too: `view.text.value = "th"`. Pictures that hold still live in `plots`.
"""

import textwrap
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets
import torch
from IPython import get_ipython
from IPython.display import display
from torch import Tensor

from llmkit import plots
from llmkit.arguments import LanguageModel, Tokenizer
from llmkit.evaluation import device_of, eval_mode
from llmkit.generation import fitting, next_token_probabilities, stream
from llmkit.picture import TINTS, Picture, visible

BOX = "display:inline-block;margin:1px;padding:3px;font:14px monospace;text-align:center;color:#000"
PRE = "<pre style='white-space:pre-wrap;line-height:1.4'>{}</pre>"


class View(ipywidgets.VBox):
    """A column of controls and of what they change, which a notebook can keep and a test compare.

    A plain VBox spells out what its children show; this text form never changes, and with it comes
    a picture for pages without a kernel: what `picture` holds, unless a subclass overrides `png`.
    """

    _ipython_display_ = None  # ipywidgets 7 would show itself through this, without the picture

    def __init__(self, controls: Sequence, shown: Sequence):
        super().__init__([*controls, *shown])
        for control in controls:
            control.observe(lambda _change: self.update(), names="value")
        self.update()

    def update(self) -> None:
        """Show what follows from the controls; called at first and whenever one is moved."""

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


def picture_box() -> ipywidgets.Image:
    """A place for a picture, empty at first, which the column does not stretch."""
    return ipywidgets.Image(layout={"align_self": "flex-start"})


def next_logits(model: LanguageModel, ids: Tensor) -> Tensor:
    """The scores (V,), on the CPU, of what may follow ids (T,); ValueError where T is 0."""
    if len(ids) == 0:
        raise ValueError("type a character or more: a model predicts from what it has read")
    with torch.no_grad(), eval_mode(model):
        return model(ids[None].to(device_of(model)))[0, -1].cpu()


class LivePlot(View):
    """A callback for `train`: the loss curve as it grows, with the latest sample beneath.

    It shows itself once the run is measured or sampled, and draws what came since at most every
    half second, for at most a tenth of the time, and at the end. options: `plots.loss_curves`'s.
    """

    def __init__(self, title: str = "The loss while the model learns", **options):
        self.title, self.options = title, options
        self.picture, self.sample = picture_box(), ipywidgets.HTML()
        self.handle, self.rest_until = None, 0.0
        super().__init__([], [self.picture, self.sample])

    def __call__(self, trainer: Any) -> None:
        started = time.monotonic()
        news = trainer.evaluated or trainer.sample
        if not (trainer.done or (news and started >= self.rest_until)):
            return
        history = trainer.history
        self.picture.value = plots.loss_curves(history, self.title, **self.options).png()
        if history.samples:
            self.sample.value = PRE.format(escape(history.samples[-1][1]))
        if self.handle is None and get_ipython() is not None:  # a script has nowhere to show it
            self.handle = display(self, display_id=True)
        if trainer.done and self.handle is not None:
            self.handle.update(self)  # so that the notebook keeps the last picture, not the first
            self.handle = None  # another run will be shown where it runs
        self.rest_until = started + max(0.5, 10 * (time.monotonic() - started))


class TextView(View):
    """A text box, what `show` makes of its text, and a line on what that is, or what is wrong."""

    def __init__(self, text: str, result: ipywidgets.DOMWidget, *controls: ipywidgets.Widget):
        self.text = ipywidgets.Textarea(value=text, rows=2, layout={"width": "95%"})
        self.result, self.nothing, self.message = result, result.value, ipywidgets.HTML()
        super().__init__([self.text, *controls], [self.result, self.message])

    def show(self, text: str) -> tuple[str, Any]:
        """The line, and the value of `result`; ValueError says what is wrong with the text."""
        raise NotImplementedError

    def update(self) -> None:
        try:
            message, self.result.value = self.show(self.text.value)
        except ValueError as error:
            message, self.result.value = str(error), self.nothing
        # An empty image would be drawn as a broken one.
        self.result.layout.display = None if len(self.result.value) else "none"
        self.message.value = escape(message)


class TokenExplorer(TextView):
    """Type a text and see its tokens, each above its id."""

    def __init__(self, tokenizer: Tokenizer, text: str = "", *controls: ipywidgets.Widget):
        self.tokenizer = tokenizer
        super().__init__(text, ipywidgets.HTML(), *controls)

    def show(self, text: str) -> tuple[str, str]:
        self.tokens, boxes = [], ""
        ids = self.tokenizer.encode(text).tolist()
        self.tokens = [(self.tokenizer.decode([i]), i) for i in ids[:500]]  # enough to look at
        # Text from outside goes into a page: its < and & must not become markup.
        for n, (token, i) in enumerate(self.tokens):
            token, tint = escape(visible(token)), TINTS[n % len(TINTS)]
            boxes += f"<div style='{BOX};background:{tint}'>{token}<br><small>{i}</small></div>"
        return f"{len(text)} characters, {len(ids)} tokens", boxes

    def png(self) -> bytes:
        tokens, ids = [token for token, _ in self.tokens], [i for _, i in self.tokens]
        return plots.token_boxes(tokens, ids, self.message.value).png() if ids else b""


class NextTokenExplorer(TextView):
    """Type the start of a text and see what a model expects next: its 15 likeliest tokens.

    model: a module like `GPT` or `NGram`, or a function from ids (T,) to probabilities (V,).
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, text: str):
        self.model, self.tokenizer, self.picture = model, tokenizer, picture_box()
        super().__init__(text, self.picture)

    def probabilities(self, text: str) -> Tensor:
        """The chance of each token to come next: (V,)."""
        ids = self.tokenizer.encode(text)
        if not hasattr(self.model, "config"):
            return torch.as_tensor(self.model(ids))
        window = ids[-self.model.config.block_size :]
        return next_logits(self.model, window).float().softmax(-1)

    def show(self, text: str) -> tuple[str, bytes]:
        p = self.probabilities(text)
        chances, ids = p.topk(min(15, len(p)))
        tokens = [self.tokenizer.decode([i]) for i in ids.tolist()]
        start, best = visible(text[-20:]), visible(tokens[0])
        title = f"After “{start}” the model expects “{best}” most of all"
        axes = {"xlabel": "probability", "ylabel": "next token", "fmt": "{:.1%}"}
        message = f"the {len(tokens)} likeliest of {len(p)} tokens: {chances.sum():.1%} of all"
        return message, plots.bars(tokens, chances, title, **axes).png()


class AttentionExplorer(View):
    """Choose a layer and a head of weights (L, H, T, T) or {layer: (H, T, T)} over T characters."""

    def __init__(self, weights, text: Sequence[str]):
        self.layers = weights if isinstance(weights, Mapping) else dict(enumerate(weights))
        self.tokens, self.picture = text, picture_box()
        # No drop-down list: JupyterLab takes the arrow keys from it.
        self.layer = ipywidgets.SelectionSlider(options=list(self.layers), description="layer")
        self.head = ipywidgets.IntSlider(max=0, description="head")
        super().__init__([self.layer, self.head], [self.picture])

    def update(self) -> None:
        heads = self.layers[self.layer.value]
        self.head.max = len(heads) - 1
        weights = torch.as_tensor(heads[self.head.value]).float().cpu()  # (T, T)
        # Row t looks back t less the mean place it looks at; rows sum to 1, so over all rows it is:
        back = (torch.arange(len(weights)) * (1 - weights.sum(0))).mean()
        title = f"Layer {self.layer.value}, head {self.head.value} looks {back:.1f} positions back"
        self.picture.value = plots.attention_maps(weights, self.tokens, title).png()


class SamplingPlayground(View):
    """A prompt, sliders for temperature, top_k and top_p, a seed; the chances of the next token as
    bars, and the text that is drawn, which appears as it grows. `generation` explains them.

    new_tokens: how many to draw, fewer where one of `stop` comes. What is typed wrongly is said in
    a line; the text and the bars stay as they were.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, prompt: str, *, new_tokens=200, stop=None
    ):
        self.model, self.tokenizer, self.text = model, tokenizer, ""
        self.new_tokens, self.stop = new_tokens, stop
        V = tokenizer.vocab_size
        if (scored := getattr(model.config, "vocab_size", V)) != V:
            raise ValueError(f"the model scores {scored} tokens, the tokenizer has {V}: not a pair")
        self.prompt = control(ipywidgets.Textarea, "prompt", "95%", value=prompt, rows=2)
        self.temperature = control(ipywidgets.FloatSlider, "temperature", value=1, max=2, step=0.05)
        self.top_k = control(ipywidgets.IntSlider, "top k", value=V, min=1, max=V)
        self.top_p = control(ipywidgets.FloatSlider, "top p", value=1, min=0.05, max=1, step=0.05)
        self.seed = control(ipywidgets.BoundedIntText, "seed", "14em", max=2**31 - 1)
        self.message, self.picture = ipywidgets.HTML(), picture_box()
        self.output = ipywidgets.HTML()
        controls = [self.prompt, self.temperature, self.top_k, self.top_p, self.seed]
        super().__init__(controls, [self.message, self.picture, self.output])

    def settings(self) -> dict[str, Any]:
        """The sliders as `generate` and `stream` take them; a slider at its end cuts nothing."""
        k, p = self.top_k.value, self.top_p.value
        top_k, top_p = k if k < self.top_k.max else None, p if p < 1 else None
        return {"temperature": self.temperature.value, "top_k": top_k, "top_p": top_p}

    def chart(self, ids: Tensor) -> Picture:
        """The chances from which the first token after ids (T,) is drawn: the likeliest tokens,
        always in the model's own order."""
        # The window that `stream` reads first: the bars are what the first token is drawn from.
        window = ids[len(ids) - fitting(len(ids), self.model.config.block_size) :]
        logits = next_logits(self.model, window)
        p = next_token_probabilities(logits, **self.settings())  # (V,)
        tokens = next_token_probabilities(logits).topk(min(12, len(p))).indices.tolist()
        names = [self.tokenizer.decode([i]) for i in tokens]
        left, best = int((p > 0).sum()), visible(self.tokenizer.decode([int(p.argmax())]))
        title = f"{left} of {len(p)} tokens may come next; “{best}” has {p.max():.0%}"
        axes = {"xlabel": "probability as set", "ylabel": "next token", "fmt": "{:.1%}"}
        return plots.bars(names, p[tokens], title, **axes)

    def png(self) -> bytes:
        """The bars with the text beneath."""
        if not self.text:
            return b""
        picture = self.chart(self.ids)
        # An empty line has nothing to wrap, and stays a line.
        rows = [row for line in self.text.split("\n") for row in textwrap.wrap(line, 80) or [""]]
        text = "\n".join(rows).rstrip()
        picture.text(0.01, -0.03, text, va="top", family="monospace", size=9)
        return picture.png()

    def update(self) -> None:
        prompt = self.prompt.value
        try:  # nothing that is shown may change before all went well
            ids = self.tokenizer.encode(prompt)
            self.picture.value = self.chart(ids).png()
        except ValueError as error:
            self.message.value = escape(str(error))
            return
        self.ids, self.message.value = ids, ""
        options = {**self.settings(), "stop": self.stop, "seed": self.seed.value}
        new: list[int] = []
        shown = time.monotonic()
        for token in stream(self.model, ids, self.new_tokens, **options):
            new.append(int(token))
            if time.monotonic() - shown > 0.2:  # a page cannot follow thousands of changes
                self.write(prompt, new)
                shown = time.monotonic()
        self.write(prompt, new)

    def write(self, prompt: str, new: list[int]) -> None:
        """Show what was drawn so far, after the prompt in bold."""
        drawn = self.tokenizer.decode(new)
        self.text = prompt + drawn
        self.output.value = PRE.format(f"<b>{escape(prompt)}</b>{escape(drawn)}")


def control(kind: type[ipywidgets.DOMWidget], name: str, width: str = "26em", **limits):
    """A named slider or box; it reports a change when it is let go, not at every pixel."""
    look = {"layout": {"width": width}, "style": {"description_width": "7em"}}
    return kind(description=name, continuous_update=False, **look, **limits)
