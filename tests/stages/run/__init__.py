"""Tests of distlstm.stages."""
