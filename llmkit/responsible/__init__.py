"""What a model remembers, prefers and gives away (notebook 15), measured.

`memorisation` measures verbatim repetition and exposed secrets, `bias` asks in pairs of sentences,
`personal_data` finds and masks it, `differential_privacy` trains without giving examples away;
`plots` draws what was found with its uncertainty.
"""
