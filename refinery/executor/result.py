"""What an effect gives: a fact, recorded in the transaction that marks the effect done."""

from __future__ import annotations

from typing import Any

Result = tuple[str, str, dict[str, Any]]  # fact kind, subject, payload
