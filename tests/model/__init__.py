"""Tests of `distlstm.model`."""
