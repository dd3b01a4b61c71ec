"""Tests of distlstm.data."""
