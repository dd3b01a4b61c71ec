"""Names of the files that commands write, shared by their writers and readers."""

CHECKPOINTS = "checkpoints"
"""In a MODEL: the state of an unfinished training."""
RUN_FILE = f"{CHECKPOINTS}/run.json"
"""In an unfinished MODEL: the identity of its command."""
MLFLOW_RUN_FILE = f"{CHECKPOINTS}/mlflow_run_id"
"""In an unfinished MODEL: the MLflow run that tracks it."""
HISTORY_FILE = "history.parquet"
"""In a MODEL: one row per epoch."""

STUDY_FILE = "study.json"
TRIALS_FILE = "trials.parquet"
"""In a STUDY: one row per trial, best first."""
EPOCHS_FILE = "epochs.parquet"
"""In a STUDY: one row per trial and epoch."""
METRICS = ("accuracy", "macro_f1", "loss")
"""Columns of both tables: the validation metrics of a trial."""
BEST = "best"
"""In a STUDY: the best MODEL; in an interrupted MODEL: a MODEL of the best epoch so far."""
BEST_CONFIG = "best.toml"

METRICS_FILE, ERRORS_FILE = "metrics.json", "errors.parquet"
"""In an evaluation: the metrics, and the wrongly classified rows with the highest scores."""
EVALUATION_FILE = "evaluation.json"
"""In an evaluation: the command's identity, and whether the output is complete."""

REPORT_FILE, PREDICTION_REPORT_FILE = "report.html", "_report.html"
"""In an output: its report. Readers of a prediction output skip names that begin with `_`."""

MANIFEST_FILE, SUCCESS_FILE = "_manifest.json", "_SUCCESS"
"""In a prediction output: its content, and the marker of a complete output."""
