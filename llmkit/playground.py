"""A playground for sampling: move a slider, and see what it does to the choice and to the text.

What the sliders set is explained in `generation`; the other views that move live in `widgets`.
"""

import textwrap
import time
from html import escape

import ipywidgets
import torch

from llmkit import plots
from llmkit.evaluation import device_of, eval_mode
from llmkit.generation import fitting, next_token_probabilities, stream
from llmkit.widgets import View, _Image

SHOWN = 12  # bars
PRE = "<pre style='white-space:pre-wrap;line-height:1.4'><b>{}</b>{}</pre>"


class SamplingPlayground(View):
    """A prompt, sliders for temperature, top_k and top_p, a seed; the chances of the next token as
    bars, and the text that is drawn, which appears as it grows.

    model, tokenizer: as `stream` takes them. new_tokens: how many to draw, fewer where one of
    `stop` comes. What is typed wrongly is said in a line; the text and the bars stay as they were.
    """

    def __init__(self, model, tokenizer, prompt: str, *, new_tokens: int = 200, stop=None):
        self.model, self.tokenizer = model, tokenizer
        self.new_tokens, self.stop = new_tokens, stop
        V = tokenizer.vocab_size
        if (scored := getattr(model.config, "vocab_size", V)) != V:
            raise ValueError(f"the model scores {scored} tokens, the tokenizer has {V}: not a pair")
        style = {"description_width": "7em"}
        look = {"continuous_update": False, "layout": {"width": "26em"}}  # not at every pixel
        look |= {"style": style}
        self.prompt = ipywidgets.Textarea(
            value=prompt, description="prompt", rows=2, **look | {"layout": {"width": "95%"}}
        )
        self.temperature = ipywidgets.FloatSlider(
            value=1, min=0, max=2, step=0.05, description="temperature", **look
        )
        self.top_k = ipywidgets.IntSlider(value=V, min=1, max=V, description="top k", **look)
        self.top_p = ipywidgets.FloatSlider(
            value=1, min=0.05, max=1, step=0.05, description="top p", **look
        )
        self.seed = ipywidgets.BoundedIntText(
            value=0, min=0, max=2**31 - 1, description="seed", layout={"width": "14em"}, style=style
        )
        self.picture, self.output, self.message = _Image(), ipywidgets.HTML(), ipywidgets.HTML()
        self.controls = (self.prompt, self.temperature, self.top_k, self.top_p, self.seed)
        self.text = ""  # the prompt and what was drawn
        super().__init__([*self.controls, self.message, self.picture, self.output])
        for control in self.controls:
            control.observe(self._update, names="value")
        self._update()

    def settings(self) -> dict:
        """The sliders as `generate` and `stream` take them; a slider at its end cuts nothing."""
        k, p = self.top_k.value, self.top_p.value
        return {
            "temperature": self.temperature.value,
            "top_k": k if k < self.top_k.max else None,
            "top_p": p if p < 1 else None,
        }

    def probabilities(self, ids: torch.Tensor) -> torch.Tensor:
        """The chances from which the first token after ids (T,) is drawn, as set: (2, V), before
        and after the settings."""
        window = ids[-fitting(len(ids), self.model.config.block_size) :]
        with torch.no_grad(), eval_mode(self.model):
            logits = self.model(window[None].to(device_of(self.model)))[0, -1]
        chances = (next_token_probabilities(logits, **s) for s in ({}, self.settings()))
        return torch.stack([p.cpu() for p in chances])

    def chart(self, ids: torch.Tensor) -> plots.Picture:
        """The likeliest tokens after ids (T,), always in the model's own order."""
        own, p = self.probabilities(ids)
        tokens = own.topk(min(SHOWN, len(own))).indices
        names = [self.tokenizer.decode([i]) for i in tokens.tolist()]
        left, best = int((p > 0).sum()), plots.visible(self.tokenizer.decode([p.argmax()]))
        title = f"{left} of {len(p)} tokens may come next; “{best}” has {p.max():.0%}"
        axes = {"xlabel": "probability as set", "ylabel": "next token", "fmt": "{:.1%}"}
        return plots.bars(names, p[tokens], title, **axes)

    def png(self) -> bytes:
        """The bars with the text beneath."""
        if not self.text:
            return b""
        picture = self.chart(self.ids)
        rows = [row for line in self.text.split("\n") for row in textwrap.wrap(line, 80) or [""]]
        text = "\n".join(rows).rstrip()
        picture.text(0.01, -0.03, text, va="top", family="monospace", size=9)
        return picture.png()

    def _update(self, _change=None) -> None:
        prompt = self.prompt.value
        try:
            ids = self.tokenizer.encode(prompt)
            if len(ids) == 0:
                raise ValueError("type a character or more: a model predicts from what it has read")
            picture = self.chart(ids).png()
        except ValueError as error:
            self.message.value = escape(str(error))
            return
        self.ids, self.picture.value, self.message.value = ids, picture, ""
        new, shown = [], time.monotonic()
        for token in stream(
            self.model,
            ids,
            self.new_tokens,
            **self.settings(),
            stop=self.stop,
            seed=self.seed.value,
        ):
            new.append(token)
            if time.monotonic() - shown > 0.2:  # a page cannot follow thousands of changes
                self._show(prompt, new)
                shown = time.monotonic()
        self._show(prompt, new)

    def _show(self, prompt: str, new: list[int]) -> None:
        drawn = self.tokenizer.decode(new)
        self.text = prompt + drawn
        self.output.value = PRE.format(escape(prompt), escape(drawn))
