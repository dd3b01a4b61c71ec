"""The texts of a language model, from the arguments of the command to the corpus."""

from dataclasses import dataclass

from distlstm.config import ExperimentConfig
from distlstm.data.opening import check_columns
from distlstm.data.reading import read_schema
from distlstm.data.text_corpus import EncodedTexts, TextCorpusSpec
from distlstm.data.text_encoding import encode_texts
from distlstm.errors import RunError
from distlstm.reader_options import DETECT, ReaderOptions
from distlstm.stages.run.events import Note, OnEvent, Progress
from distlstm.stages.run.session import our_error
from distlstm.storage import Directory


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """The rows without labels that the user asked for."""

    unlabelled: tuple[str, ...]
    column: str = "text"
    reader: ReaderOptions = DETECT

    def find(self, config: ExperimentConfig, *, on_event: OnEvent) -> TextCorpusSpec:
        """Find the files; those that are passed over are reported.

        Raises:
            UserError: there are no files, the first is unreadable, or it has no such column.
        """
        spec = TextCorpusSpec.find(
            self.unlabelled,
            column=self.column,
            text=config.text,
            reader=self.reader,
            on_note=lambda text: on_event(Note(text)),
        )
        first, columns = spec.unlabelled[0], [spec.column]
        check_columns(first, read_schema(first, until=columns), columns)
        return spec


def prepare_texts(spec: TextCorpusSpec, directory: Directory, on_event: OnEvent) -> EncodedTexts:
    """Encode texts below `directory`, or open them if they are encoded, and report their figures.

    Raises:
        UserError: the data is unreadable, or has too few texts.
    """
    storage = directory.below(f"texts-{spec.fingerprint}")

    def progress(title: str, done: int, total: int) -> None:
        on_event(Progress(title, done, total))

    try:
        corpus = encode_texts(spec, storage, progress=progress)
    except Exception as error:
        raise our_error(error) or RunError(f"Reading the data failed: {error}") from error
    _describe(corpus, on_event)
    return corpus


def _describe(corpus: EncodedTexts, on_event: OnEvent) -> None:
    summary = corpus.summary
    on_event(
        Note(
            f"Language model: {summary.num_training:,} rows of text with "
            f"{summary.num_tokens:,} tokens, and {summary.num_validation:,} to measure it on; a "
            f"vocabulary of {len(corpus.vocabulary):,} tokens ({summary.unknown_share:.1%} of all "
            f"tokens unknown, {summary.truncated_share:.1%} of the rows cut short)."
        )
    )
    if summary.dropped:
        reasons = ", ".join(f"{count:,} with {why}" for why, count in summary.dropped.items())
        on_event(Note(f"Rows left out: {reasons}."))
