"""Pictures of what was measured with its uncertainty; all others are in `llmkit.plots`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmkit.picture import COLOURS, Picture, as_array, row_axes, styled


@styled
def intervals(
    labels: Sequence[str],
    series: Mapping[str, Any],
    title: str,
    *,
    xlabel: str,
    truth: Sequence[float] = (),
) -> Picture:
    """Means with what they are uncertain by, from the top down, one line for each label.

    series: {name: (N, 3)}, mean and ends of an interval; or {name: (N, M)} with M > 3, single
    measurements, drawn as pale dots about their mean. truth (N,): what should have been found.
    """
    single = False
    height = 1.7 + (0.12 + 0.2 * len(series)) * len(labels)
    picture, axes = row_axes(labels, title, height, xlabel=xlabel, xmargin=0.06)
    rows = np.arange(len(labels))
    for i, (name, values) in enumerate(series.items()):
        values = as_array(values, f"series {name!r}", len(labels), None)
        colour = COLOURS[i % len(COLOURS)]
        y = rows + 0.3 * (i - (len(series) - 1) / 2)  # series lie under each other in a row
        if values.shape[1] == 3:
            mean, low, high = values.T
            axes.hlines(y, low, high, color=colour, lw=2.5)
        else:
            mean = values.mean(axis=1)
            about = None if single else "one measurement (pale)"
            single = True
            spots = dict(color=colour, alpha=0.4, lw=0, label=about)
            axes.scatter(values, y.repeat(values.shape[1]), 22, **spots)
        named = name if values.shape[1] == 3 else f"{name}: mean"
        axes.plot(mean, y, "o", color=colour, ms=7, label=named)
    if len(truth):
        true_values = as_array(truth, "truth", len(labels))
        axes.plot(true_values, rows, "kD", mfc="none", ms=9, label="truth")
    columns = len(series) + single + bool(len(truth))
    picture.legend(loc="outside lower left", ncols=columns)
    return picture
