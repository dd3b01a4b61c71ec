"""Tests of distlstm.model."""
