"""The labelled data of `train` and `tune`, from the arguments of the command to the corpus."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import CorpusSpec, EncodedCorpus, Inherited
from distlstm.data.encoding import encode_corpus, is_small
from distlstm.data.files import SourceFile
from distlstm.data.labelled import Columns
from distlstm.data.opening import check_columns
from distlstm.data.reading import read_schema
from distlstm.errors import RunError, UserError
from distlstm.reader_options import DETECT, ReaderOptions
from distlstm.stages.run.events import Note, OnEvent, Progress
from distlstm.stages.run.session import our_error
from distlstm.storage import Directory
from distlstm.text.labels import listed


@dataclass(frozen=True, kw_only=True)
class DataRequest:
    """The data that the user asked for."""

    training: tuple[str, ...]
    validation: tuple[str, ...] = ()
    columns: Columns = field(default_factory=Columns)
    init: Directory | None = None
    """MODEL directory to continue from, or a language model to begin with."""
    unlabelled: tuple[str, ...] = ()
    """Rows without labels, of which a language model is learnt first."""
    reader: ReaderOptions = DETECT

    def find(self, config: ExperimentConfig, *, on_event: OnEvent) -> CorpusSpec:
        """Find the files, and read what is taken over from an earlier model.

        Files that are passed over are reported.

        Raises:
            UserError: there are no files, or the model does not fit the config.
        """
        return CorpusSpec.find(
            self.training,
            self.validation,
            columns=replace(self.columns, weight=config.training.weight_column),
            text=config.text,
            validation_fraction=config.validation_fraction,
            inherited=self._inherited(config),
            reader=self.reader,
            on_note=lambda text: on_event(Note(text)),
        )

    def _inherited(self, config: ExperimentConfig) -> Inherited | None:
        if self.init is None:
            return None
        from distlstm.stages.training.initial_model import inherit  # imports torch

        return inherit(self.init, config)


def check_first_file(spec: CorpusSpec) -> None:
    """Check, before Ray starts, that the first file of each split is readable and has the columns.

    Raises:
        UserError: it is not, or a column is missing; the message lists its columns.
    """
    for files, columns in (
        (spec.training, spec.columns),
        (spec.validation, spec.columns.without_weight()),
    ):
        if files:
            check_columns(files[0], read_schema(files[0], until=columns.names), columns.names)


def check_outside(files: Iterable[SourceFile], output: Directory) -> None:
    """Check that the data are not in the output, which `--overwrite` empties.

    Raises:
        UserError: a file is.
    """
    for file in files:
        if file.path.startswith(f"{output.location}/"):
            raise UserError(
                f"{file.path} lies inside the output {output.location}. Choose another --output."
            )


def check_vectors(spec: CorpusSpec, config: ExperimentConfig) -> None:
    """Check, before Ray starts, that the pretrained vectors fit the embedding.

    Raises:
        UserError: they are unreadable or have another dimension; the message has both dimensions.
    """
    if spec.vectors is None:
        return
    dimension, name = spec.vectors.dimension(), "model.embedding_dim"
    if config.model.embedding_dim != dimension:
        raise UserError(
            f"The vectors in {spec.vectors.path} have dimension {dimension}, but {name} is "
            f"{config.model.embedding_dim}. Add --set {name}={dimension}."
        )


def prepare_corpus(spec: CorpusSpec, directory: Directory, on_event: OnEvent) -> EncodedCorpus:
    """Encode a corpus below `directory`, or open it if it exists, and report its figures.

    Raises:
        UserError: the data is unreadable or unfit for training.
    """
    storage = directory.below(f"corpus-{spec.fingerprint}")

    def progress(title: str, done: int, total: int) -> None:
        on_event(Progress(title, done, total))

    try:
        corpus = encode_corpus(spec, storage, progress=progress)
    except Exception as error:
        raise our_error(error) or RunError(f"Reading the data failed: {error}") from error
    _describe(corpus, spec.inherited, on_event)
    return corpus


@contextmanager
def encoding_in_background(
    spec: CorpusSpec, directory: Directory, on_event: OnEvent, *, at_once: bool = True
) -> Iterator[Callable[[], EncodedCorpus]]:
    """Encode a small corpus in a thread while Ray starts, unless it is not to begin at once.

    Yields a function that returns the corpus and raises the errors of `prepare_corpus`. A large
    corpus, whose encoding needs Ray, is encoded when the function is called.
    """
    prepare = partial(prepare_corpus, spec, directory, on_event)
    if not at_once or not is_small(spec.files):
        yield prepare
        return
    with ThreadPoolExecutor(max_workers=1) as background:
        yield background.submit(prepare).result


def check_weights(corpus: EncodedCorpus, config: ExperimentConfig) -> None:
    """Raise a UserError if balanced class weights are asked for and rows have sets of labels."""
    from distlstm.model.label_kind import label_kind  # imports torch

    domain = config.search.space.get("training.class_weights")
    asked = (config.training.class_weights, *(domain.values if domain else ()))
    if label_kind(corpus.kind).gives_sets and "balanced" in asked:
        raise UserError(
            "training.class_weights = balanced needs rows of one label, but these rows have lists "
            "of labels. Weight single rows with training.weight_column instead."
        )


def _describe(corpus: EncodedCorpus, inherited: Inherited | None, on_event: OnEvent) -> None:
    summary = corpus.summary
    on_event(
        Note(
            f"{summary.num_training:,} training and {summary.num_validation:,} validation rows, "
            f"{len(corpus.labels)} labels, a vocabulary of {len(corpus.vocabulary):,} tokens "
            f"({summary.unknown_share:.1%} of all tokens unknown, "
            f"{summary.truncated_share:.1%} of the rows cut short)."
        )
    )
    if summary.num_vectors:
        on_event(
            Note(
                f"Pretrained vectors for {summary.num_vectors:,} of the {len(corpus.vocabulary):,} "
                f"tokens of the vocabulary, {summary.vectors_share:.1%} of the text."
            )
        )
    if summary.dropped:
        reasons = ", ".join(f"{count:,} with {why}" for why, count in summary.dropped.items())
        on_event(Note(f"Rows left out: {reasons}."))
    rare = [label for label in corpus.labels.names if summary.label_counts.get(label, 0) < 2]
    if inherited is not None:
        _describe_inherited(corpus, inherited, on_event)
        rare = [label for label in rare if label not in inherited.labels]
    if rare:
        on_event(Note(f"Labels with at most one training row, too few to learn: {listed(rare)}."))


def _describe_inherited(corpus: EncodedCorpus, inherited: Inherited, on_event: OnEvent) -> None:
    num_tokens = f"{inherited.num_tokens:,} of {len(corpus.vocabulary):,} tokens"
    if not inherited.labels:
        on_event(Note(f"{num_tokens} known from the language model."))
        return
    on_event(
        Note(
            f"{num_tokens} and "
            f"{len(inherited.labels)} of {len(corpus.labels)} labels kept from the earlier model."
        )
    )
    present = {corpus.labels.names[i] for i in np.unique(corpus.training.label_ids)}
    absent = [label for label in inherited.labels if label not in present]
    if absent:
        on_event(
            Note(
                "Labels of the earlier model without a training row, which it may forget: "
                f"{listed(absent)}."
            )
        )
