"""What `python -m llmkit` can do: train, evaluate, generate, export, serve and fetch.

One file a command: `add` declares its options, `run` runs it; `line` chooses among them, and tells
errors. `recipe` holds what `train` trains, `inputs` how a model and a text are named. Here are the
progress bars and what is printed; all the rest can be done from Python. It stands on
`llmkit.speed`, `llmkit.scale`, `llmkit.finetune`, `llmkit.modern` and `llmkit.deploy`.
"""
