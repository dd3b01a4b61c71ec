"""Tests of distlstm.console."""
