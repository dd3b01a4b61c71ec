"""How many trials run at once, and which resources each of them takes."""

from dataclasses import dataclass

from distlstm.config import TrainingConfig
from distlstm.errors import UserError
from distlstm.stages.run.session import Capacity, Resources


@dataclass(frozen=True, kw_only=True)
class TrialResources:
    """The resources of a running trial."""

    num_workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    """0: the workers compute on CPUs."""

    @property
    def use_gpu(self) -> bool:
        """Whether the workers compute on GPUs."""
        return self.gpus_per_worker > 0

    @property
    def of_worker(self) -> dict[str, float]:
        """The resources of a worker, in the format of Ray Train."""
        gpu = {"GPU": self.gpus_per_worker} if self.use_gpu else {}
        return {"CPU": self.cpus_per_worker, **gpu}

    @property
    def of_tune_process(self) -> dict[str, float]:
        """The resources of the trial's own process, in the format of Ray Tune.

        If Ray Train runs inside the trial, this process computes nothing and must not reserve a
        CPU: otherwise trials could take all CPUs, and their workers would wait forever (deadlock).
        """
        if self.num_workers > 1:
            return {"memory": 1}
        return {"cpu": self.cpus_per_worker, "gpu": self.gpus_per_worker}

    def __str__(self) -> str:
        """The text for messages: `2 workers of 1 CPUs and 0.5 GPUs each`."""
        gpus = f" and {self.gpus_per_worker:g} GPUs" if self.use_gpu else ""
        return f"{self.num_workers} workers of {self.cpus_per_worker} CPUs{gpus} each"


def trial_resources(capacity: Capacity, training: TrainingConfig) -> TrialResources:
    """The resources of each trial."""
    workers = training.workers_per_trial
    gpus = (training.gpus_per_trial or workers) / workers if capacity.use_gpu else 0.0
    return TrialResources(
        num_workers=workers, cpus_per_worker=capacity.cpus_per_worker, gpus_per_worker=gpus
    )


def trials_at_once(
    capacity: Capacity, trial: TrialResources, *, resources: Resources, concurrency: int | None
) -> int:
    """How many trials run at once: as many as were asked for, else as many as fit.

    Of a range of workers, only the least must fit.

    Raises:
        UserError: none fits, or fewer than were asked for; the message lists the resources.
    """
    fit = capacity.num_cpus // (trial.num_workers * trial.cpus_per_worker)
    if trial.use_gpu:
        fit = min(fit, int(capacity.num_gpus / (trial.num_workers * trial.gpus_per_worker) + 1e-9))
    workers = resources.workers
    if workers is not None and workers.most < trial.num_workers:
        raise UserError(
            f"--workers {workers} is less than the {trial.num_workers} workers of one trial. "
            "Raise it, or lower training.workers_per_trial."
        )
    wanted = concurrency or (workers.least // trial.num_workers if workers else 0) or 1
    if wanted > fit:
        gpus = f" and {capacity.num_gpus} GPUs" if trial.use_gpu else ""
        raise UserError(
            f"{wanted} trials at once, of {trial}, do not fit: Ray has {capacity.num_cpus} "
            f"CPUs{gpus}, enough for {fit}. Lower --concurrency, --workers, --cpus-per-worker or "
            "training.workers_per_trial."
        )
    if concurrency:
        return concurrency
    return min(fit, workers.most // trial.num_workers) if workers else fit
