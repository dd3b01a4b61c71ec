"""Errors that a user can fix: a command prints their message and exits."""


class UserError(Exception):
    """A usage, configuration or data error found before work starts (exit code 2).

    The message is one or two plain sentences: what is wrong, where, and what to do next.
    """


class RunError(Exception):
    """An error after work has started (exit code 1)."""


class OutputError(RunError):
    """A result that could not be printed: its device is full, or its encoding lacks a character."""
