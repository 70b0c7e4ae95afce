"""The commands of `python -m llmkit`, a module each: `add` declares its options, `run` runs it.

Everything they do can be done from Python too, with `llmkit.deploy` for a model that is trained;
here live only the arguments, the progress bars and what is printed. They stand above all of llmkit:
no other module imports them but `__main__`.
"""
