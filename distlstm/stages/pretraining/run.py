"""Trains a language model on Ray once its texts are encoded, and writes its directory."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from distlstm.config import ExperimentConfig
from distlstm.data.batching import text_limits
from distlstm.data.text_corpus import EncodedTexts
from distlstm.model.checkpoint import load_best_weights, load_history
from distlstm.model.language_directory import PretrainedModel, save_language_model
from distlstm.model.language_model import LanguageModel
from distlstm.model.pretraining import LanguageEpoch
from distlstm.stages.pretraining.worker import PretrainingSettings, pretrain_worker
from distlstm.stages.run.events import OnEvent, Progress
from distlstm.stages.run.files import HISTORY_FILE
from distlstm.stages.run.output import Identity
from distlstm.stages.run.session import Capacity
from distlstm.stages.training.fit import Fit
from distlstm.stages.training.history import write_language_history
from distlstm.stages.training.progress import progress_queue
from distlstm.storage import Directory
from distlstm.worker_range import WorkerRange


@dataclass(frozen=True, kw_only=True)
class PretrainingRun:
    """A training of a language model with encoded texts."""

    corpus: EncodedTexts
    config: ExperimentConfig
    time_budget: float | None
    checkpoints: Directory
    check: Callable[[], None]
    identity: Identity

    def train(
        self, path: Path, capacity: Capacity, workers: WorkerRange, on_event: OnEvent
    ) -> None:
        """Train on the cluster, and write the language model into a local directory.

        Raises:
            RunError: training diverged, or workers died too often.
        """
        on_event(Progress(f"starting {workers} workers", 0, 1))
        with progress_queue() as queue:
            settings = PretrainingSettings(
                corpus=self.corpus.storage,
                config=self.config,
                time_budget=self.time_budget,
                progress=queue,
                cpus_per_worker=capacity.cpus_per_worker,
            )
            checkpoint, _ = Fit(
                function=pretrain_worker,
                settings=settings,
                progress=queue,
                checkpoints=self.checkpoints,
                workers=workers,
                capacity=capacity,
                memory_advice=self._memory_advice,
                check=self.check,
                on_event=on_event,
            ).run()
        with checkpoint.as_directory() as directory:
            self._write(path, Path(directory))

    def _write(self, path: Path, checkpoint: Path) -> None:
        """Write history and model. `model.json`, which marks a finished training, is last."""
        with torch.random.fork_rng():  # keeps the random state of a host such as a notebook
            model = LanguageModel(self.config.model, vocab_size=len(self.corpus.vocabulary))
        model.load_state_dict(load_best_weights(checkpoint))
        history = load_history(checkpoint, LanguageEpoch)
        best = next(result for result in reversed(history) if result.is_best)
        path.mkdir(parents=True, exist_ok=True)
        write_language_history(path / HISTORY_FILE, history)
        metadata: dict[str, Any] = {
            "metrics": {"log_loss": best.validation_loss, "perplexity": best.perplexity},
            "best_epoch": best.epoch,
            "corpus": asdict(self.corpus.summary),
            "run": self.identity,
        }
        pretrained = PretrainedModel(
            config=self.config, model=model, vocabulary=self.corpus.vocabulary, metadata=metadata
        )
        save_language_model(pretrained, path)

    def _memory_advice(self) -> str:
        tokens = text_limits(self.config.pretraining, self.corpus.summary.num_tokens).tokens
        return (
            "A training worker ran out of memory. Resume with fewer --workers, or start again with "
            f"--overwrite and a lower pretraining.tokens_per_batch (now {tokens:,}) or "
            "model.hidden_dim."
        )
