"""The two ways in which a command can fail for a reason that its user can mend."""


class UserError(Exception):
    """A usage, configuration or data error found before work starts (exit code 2).

    The message is one or two plain sentences: what is wrong, where, and what to do next.
    """


class RunError(Exception):
    """Work that started and could not be finished (exit code 1)."""
