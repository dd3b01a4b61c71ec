"""Searching: the study, its trials on Ray Tune, and the choice among them."""
