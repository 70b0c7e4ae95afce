"""`python -m llmkit`: the command line, which lives in `llmkit.commands`."""

import sys

from llmkit.commands.line import main

if __name__ == "__main__":
    sys.exit(main())
