"""Tests of distlstm.api."""
