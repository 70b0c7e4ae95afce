"""The two projects at the end: code completion (notebook 17), several languages (notebook 18).

`python_source` is a corpus of Python and its tasks, `code_completion` has a model do them;
`languages` holds a parallel text and measures each of its sentences. How code is cut into words is
`llmkit.bpe`'s to say, how many prompts are continued together `llmkit.speed`'s.
"""
