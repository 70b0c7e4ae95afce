"""The exercises of the notebooks: `check` says whether an answer is right, `hint` how to begin.

    check("04.fading_weights", fading_weights)

The result's text begins with ``not tried yet``, ``passed`` or ``wrong``; a wrong answer is shown
with the smallest case in which it fails and, where it is a known one, with its mistake by name.
Each notebook's exercises are in a module of their own, `notebook_04` and so on; how an answer is
run and compared is told in `examining`. Right answers come, where they can, from `llmkit.bpe`,
`llmkit.finetune`, `llmkit.responsible` and `llmkit.scale`, when an exercise is asked for.
"""

from llmkit.exercises.checking import check, hint

__all__ = ["check", "hint"]
