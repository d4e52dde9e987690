"""`gt`: an agent's commands, one for each tool, on PATH in every workspace.

Standard library only, Python 3.9 or newer, and as few imports as can be: agents call it often. Which commands there
are, and their arguments, is a table that the server writes beside it from its registry of tools. It talks to
GASTOWN_URL with GASTOWN_TOKEN. Exit codes: 0 done, 1 refused or failed (one sentence), 2 wrong use.
"""
