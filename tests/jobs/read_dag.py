"""Prints the tasks of a DAG file as JSON; run by the Python that has Airflow, without distlstm."""

import json
import sys

from airflow.dag_processing.dagbag import DagBag

bag = DagBag(sys.argv[1])
tasks = {
    task.task_id: {"command": task.bash_command, "next": sorted(task.downstream_task_ids)}
    for dag in bag.dags.values()
    for task in dag.tasks
}
json.dump({"errors": bag.import_errors, "dags": sorted(bag.dags), "tasks": tasks}, sys.stdout)
