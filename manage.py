#!/usr/bin/env python
"""Gastown's command line: `python manage.py COMMAND`, the same as `gastown COMMAND`."""

from gastown_site.cli import main

if __name__ == "__main__":
    main()
