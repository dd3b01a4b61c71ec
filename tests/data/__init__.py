"""Tests of `distlstm.data`."""
