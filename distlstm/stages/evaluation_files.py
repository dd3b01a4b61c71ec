"""Names in an output of `evaluate`, for what writes one and for what shows one."""

METRICS_FILE, ERRORS_FILE = "metrics.json", "errors.parquet"
