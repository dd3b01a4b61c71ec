"""Hyperparameter search: the study, its trials on Ray Tune, and the choice of the best."""
