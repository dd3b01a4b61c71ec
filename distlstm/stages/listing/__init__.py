"""Outputs of commands, as records that can be compared: found below a directory, not made here."""
