"""Training one model: labelled data, workers, checkpoints, and the MODEL directory."""
