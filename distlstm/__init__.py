"""Distributed LSTM text classification on Ray: train, tune, evaluate and label at scale.

>>> import distlstm
>>> result = distlstm.train("labelled/*.parquet", output="model")
>>> distlstm.load_model("model").predict(["Two texts", "to be labelled"]).labels

Everything below is imported when it is first used, so that `import distlstm` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distlstm.api.batch_predict import batch_predict, estimate, verify
    from distlstm.api.evaluate import evaluate
    from distlstm.api.jobs import job, job_log, jobs, plan_job, stop_job, submit
    from distlstm.api.model import Model, Predictions, load_model
    from distlstm.api.pretrain import pretrain
    from distlstm.api.report import write_report
    from distlstm.api.runs import runs
    from distlstm.api.serve import serve
    from distlstm.api.train import train
    from distlstm.api.tune import tune
    from distlstm.config import ExperimentConfig, load_config
    from distlstm.console.notebook import NotebookProgress
    from distlstm.console.terminal import TerminalProgress
    from distlstm.errors import RunError, UserError
    from distlstm.ray_jobs.job import Job
    from distlstm.ray_jobs.plan import JobPlan
    from distlstm.reader_options import ReaderOptions
    from distlstm.stages.listing.record import RunList, RunRecord
    from distlstm.stages.run.results import (
        BatchPredictResult,
        Estimate,
        EvaluationResult,
        PretrainResult,
        ServeResult,
        TrainResult,
        TuneResult,
        Verification,
    )

__version__ = "0.1.0"

_MODULES = {
    "api.train": ["train"],
    "api.tune": ["tune"],
    "api.evaluate": ["evaluate"],
    "api.batch_predict": ["batch_predict", "estimate", "verify"],
    "api.jobs": ["job", "job_log", "jobs", "plan_job", "stop_job", "submit"],
    "api.model": ["Model", "Predictions", "load_model"],
    "api.pretrain": ["pretrain"],
    "api.report": ["write_report"],
    "api.runs": ["runs"],
    "api.serve": ["serve"],
    "config": ["ExperimentConfig", "load_config"],
    "console.notebook": ["NotebookProgress"],
    "console.terminal": ["TerminalProgress"],
    "errors": ["RunError", "UserError"],
    "ray_jobs.job": ["Job"],
    "ray_jobs.plan": ["JobPlan"],
    "reader_options": ["ReaderOptions"],
    "stages.listing.record": ["RunList", "RunRecord"],
    "stages.run.results": [
        *("BatchPredictResult", "Estimate", "EvaluationResult", "PretrainResult", "ServeResult"),
        *("TrainResult", "TuneResult", "Verification"),
    ],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BatchPredictResult",
    "Estimate",
    "EvaluationResult",
    "ExperimentConfig",
    "Job",
    "JobPlan",
    "Model",
    "NotebookProgress",
    "Predictions",
    "PretrainResult",
    "ReaderOptions",
    "RunError",
    "RunList",
    "RunRecord",
    "ServeResult",
    "TerminalProgress",
    "TrainResult",
    "TuneResult",
    "UserError",
    "Verification",
    "batch_predict",
    "estimate",
    "evaluate",
    "job",
    "job_log",
    "jobs",
    "load_config",
    "load_model",
    "plan_job",
    "pretrain",
    "runs",
    "serve",
    "stop_job",
    "submit",
    "train",
    "tune",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'distlstm' has no attribute {name!r}")
    value = getattr(import_module(f"distlstm.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, for completion."""
    return [*__all__, "__version__"]
