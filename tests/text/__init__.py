"""Tests of distlstm.text."""
