"""Distributed LSTM text classification on Ray: train, tune, evaluate and label at scale."""

__version__ = "0.1.0"
