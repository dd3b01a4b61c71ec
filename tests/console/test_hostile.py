"""Whatever the data hold, the terminal gets no control character of theirs."""

import json
import re
import sys

import pytest

from distlstm.console import results
from distlstm.console.terminal import TerminalProgress
from distlstm.stages.run.events import Note, Progress, TrialRow, TrialsChanged
from distlstm.stages.run.results import (
    BatchPredictResult,
    EvaluationResult,
    TuneResult,
    Verification,
)

HOSTILE = "\x1b]0;owned\x07\x9b31m[bold]a\rb"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")
FIGURES = {"accuracy": 0.5, "macro_f1": 0.5, "macro_recall": 0.5, "micro_f1": 0.5}
LABEL = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 3}
TRIAL = TrialRow(
    trial="0", parameters={"model.cell": HOSTILE}, state="failed", error=f"no file {HOSTILE}"
)


def evaluation() -> EvaluationResult:
    return EvaluationResult(
        num_rows=3, **FIGURES, weighted_f1=0.5, mcc=0.5, log_loss=0.5, ece=0.5,
        labels=[HOSTILE], per_label={HOSTILE: LABEL},
    )  # fmt: skip


def test_results_and_errors(capfd: pytest.CaptureFixture[str]) -> None:
    results.print_evaluation(evaluation())
    results.print_error(f"No column in {HOSTILE}")
    results.print_text(HOSTILE)
    results.print_command(HOSTILE)
    results.print_interrupted(["distlstm", HOSTILE])
    results.print_verification(
        Verification(
            output=HOSTILE, parts=1, rows_out=1, inputs_gone=0, faults=[HOSTILE], seconds=1.0
        )
    )
    results.print_batch_predict(
        BatchPredictResult(
            output=HOSTILE,
            rows_in=1,
            rows_out=1,
            rows_without_prediction=0,
            parts_written=1,
            parts_reused=0,
            seconds=1.0,
            rows_per_second=1.0,
            tokens_per_second=1.0,
            partner_share=0.0,
        )
    )
    study = TuneResult(
        study=HOSTILE, best={"trial": "0"}, trials=[vars(TRIAL)], seconds=1.0, resumed=False
    )
    results.print_tune(study, metric="macro_f1")
    sys.stdout.write(f"{study}\n{evaluation()}\n")
    captured = capfd.readouterr()
    for text in captured:
        assert CONTROL.search(text) is None
        assert r"\x1b]0;owned\x07\x9b31m[bold]a\x0db" in text


def test_progress(capfd: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress() as progress:
        progress(Note(HOSTILE))
        progress.last_line = -1e9
        progress(Progress(HOSTILE, 1, 2, HOSTILE))
        progress(TrialsChanged((TRIAL,), 1, "macro_f1"))
    shown = capfd.readouterr().err
    assert CONTROL.search(shown) is None
    assert shown.count(r"\x1b]0;owned") >= 3


def test_json_is_the_same_value_and_has_no_control_character(
    capfd: pytest.CaptureFixture[str],
) -> None:
    results.print_json({"text": HOSTILE, "天气": "é"})
    line = capfd.readouterr().out
    assert json.loads(line) == {"text": HOSTILE, "天气": "é"}
    assert CONTROL.search(line) is None
    assert "天气" in line
