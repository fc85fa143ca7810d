"""What stands in the way of a reconciliation, as types. `reason` is a CamelCase word for conditions and Events; the
message says what happened and what to do.

    OperatorFault
    ├── InvalidSpec       the resource asks for what cannot be; only an edit helps
    ├── Refused           a change that cannot be done; what runs is left alone
    ├── Blocked           something outside has to be mended first
    └── Waiting           it is on its way; look again soon
"""

from __future__ import annotations


class OperatorFault(Exception):
    """Base of every error that ends in a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidSpec(OperatorFault):
    """The resource asks for what cannot be."""


class Refused(OperatorFault):
    """A change that cannot be done to a memory that is there."""


class Blocked(OperatorFault):
    """Something outside the operator has to be mended; it is looked at again with a growing pause."""


class Waiting(OperatorFault):
    """Something is on its way."""
