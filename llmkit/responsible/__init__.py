"""What a model remembers, prefers and gives away (notebooks 15 and 16), measured.

`memorisation` measures verbatim repetition, exposed secrets and membership, `bias` asks in pairs of
sentences, `personal_data` finds and masks it, `differential_privacy` trains without giving examples
away; `planted` makes texts whose faults are known, `cards` the page on which all of it is told, and
`plots` draws what was found with its uncertainty.
"""
