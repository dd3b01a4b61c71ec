"""The labelled data of `train` and `tune`, from the command's arguments to an encoded corpus."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import CorpusSpec, EncodedCorpus
from distlstm.data.encoding import encode_corpus
from distlstm.data.labelled import Columns
from distlstm.data.reading import check_columns, read_schema
from distlstm.errors import RunError, UserError
from distlstm.stages.events import Note, OnEvent, Progress
from distlstm.stages.session import our_error


@dataclass(frozen=True, kw_only=True)
class DataRequest:
    """What the user named."""

    training: tuple[str, ...]
    validation: tuple[str, ...] = ()
    columns: Columns = field(default_factory=Columns)

    def find(self, config: ExperimentConfig) -> CorpusSpec:
        """Find the files.

        Raises:
            UserError: there are none.
        """
        return CorpusSpec.find(
            self.training,
            self.validation,
            columns=replace(self.columns, weight=config.training.weight_column),
            text=config.text,
            validation_fraction=config.validation_fraction,
        )


def check_first_file(spec: CorpusSpec) -> None:
    """See, before Ray starts, that the first file of each split can be read and has the columns.

    Raises:
        UserError: it cannot, or lists the columns that it has.
    """
    for files, columns in (
        (spec.training, spec.columns),
        (spec.validation, spec.columns.without_weight()),
    ):
        if files:
            check_columns(files[0], read_schema(files[0]), columns.names)


def prepare_corpus(spec: CorpusSpec, directory: Path, on_event: OnEvent) -> EncodedCorpus:
    """Encode a corpus below `directory`, or open it if that is done; says what was left out.

    Raises:
        UserError: the data cannot be read or trained on.
    """
    path = directory / f"corpus-{spec.fingerprint}"

    def progress(title: str, done: int, total: int) -> None:
        on_event(Progress(title, done, total))

    try:
        corpus = encode_corpus(spec, path, progress=progress)
    except Exception as error:
        raise our_error(error) or RunError(f"Reading the data failed: {error}") from error
    _describe(corpus, on_event)
    return corpus


def check_weights(corpus: EncodedCorpus, config: ExperimentConfig) -> None:
    """Raise a UserError if balanced labels are asked for where a row has a set of them."""
    domain = config.search.space.get("training.class_weights")
    asked = (config.training.class_weights, *(domain.values if domain else ()))
    if corpus.kind == "multi" and "balanced" in asked:
        raise UserError(
            "training.class_weights = balanced needs rows of one label; these have lists of them. "
            "Weigh single rows with training.weight_column instead."
        )


def _describe(corpus: EncodedCorpus, on_event: OnEvent) -> None:
    summary = corpus.summary
    on_event(
        Note(
            f"{summary.num_training:,} training and {summary.num_validation:,} validation rows, "
            f"{len(corpus.labels)} labels, {len(corpus.vocabulary):,} tokens known "
            f"({summary.unknown_share:.1%} of the text unknown, "
            f"{summary.truncated_share:.1%} of the rows cut short)."
        )
    )
    if summary.dropped:
        reasons = ", ".join(f"{count:,} with {why}" for why, count in summary.dropped.items())
        on_event(Note(f"Rows left out: {reasons}."))
    rare = [label for label in corpus.labels.names if summary.label_counts.get(label, 0) < 2]
    if rare:
        names = ", ".join(map(repr, rare[:5])) + (", ..." if len(rare) > 5 else "")
        on_event(Note(f"Labels with at most a single training row, hardly learnable: {names}."))
