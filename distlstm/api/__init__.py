"""The Python API: a function for each command, with the same names, defaults and errors.

A function imports what it needs when it is called, once the environment that Ray reads at its
import is prepared; so `import distlstm` is instant.
"""
