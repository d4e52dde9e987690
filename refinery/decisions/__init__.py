"""What people decide. Each of these modules declares its verbs (`refinery.decisions.verbs`) when it is imported."""

from refinery.decisions import work, steering, merge_queue, reviews, operators, towns, budgets, mayor  # noqa: F401, I001 - in the console's order
