"""An Airflow 3 DAG that labels what is new every night: `batch-predict`, then `verify`.

Copy this file into the folder of your DAGs, and set your own value in every line marked CHANGE. It
needs `apache-airflow-providers-standard` and imports nothing of distlstm, which can have an
environment of its own.

The commands run on the Airflow worker. To run them on a Ray cluster, make COMMAND
`["distlstm", "submit", "--address", ADDRESS, "--"]`; RAY_AUTH_TOKEN_PATH names the token's file.
"""

import shlex
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

COMMAND = ["distlstm"]  # CHANGE: a path, if it is in an environment of its own
INPUT = "s3://lake/posts"  # CHANGE
MODEL = "s3://lake/news/model"  # CHANGE: trained before
OUTPUT = "s3://lake/labels"  # CHANGE

with DAG(
    "distlstm_nightly",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
):
    label = BashOperator(
        task_id="label",
        bash_command=shlex.join(
            [*COMMAND, "batch-predict", INPUT, "--model", MODEL, "--output", OUTPUT, "--json"]
        ),
        append_env=True,
        retries=3,  # the same command goes on where it stopped
        retry_delay=timedelta(minutes=5),
    )
    check = BashOperator(
        task_id="check",
        bash_command=shlex.join([*COMMAND, "verify", OUTPUT, "--json"]),
        append_env=True,
    )
    label >> check
