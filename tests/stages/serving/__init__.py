"""Tests of distlstm.stages.serving."""
