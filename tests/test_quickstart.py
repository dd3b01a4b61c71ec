"""The notebook of examples/ runs from its first cell to its last, in a kernel of its own."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples/quickstart.ipynb"

pytestmark = [
    pytest.mark.ray,
    pytest.mark.soak,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What each cell showed, by what it begins with."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    directory = str(tmp_path_factory.mktemp("notebook"))
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": directory}}
    ).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return {cell.source.partition("(")[0]: cell.outputs for cell in cells}


def html_of(outputs: list[Any]) -> str:
    return "".join(o.data.get("text/html", "") for o in outputs if "data" in o)


def test_results_are_tables_in_a_notebook(outputs: dict[str, list[Any]]) -> None:
    trained = html_of(outputs["trained = distlstm.train"])
    accuracy = float(re.search(r"accuracy</td><td>([\d.]+)", trained)[1])  # type: ignore[index]
    assert accuracy > 0.6
    assert "num_rows" in html_of(outputs["distlstm.evaluate"])
    predicted = html_of(outputs["distlstm.batch_predict"])
    assert "rows_without_prediction</td><td>0<" in predicted
    assert "faults</td><td>0<" in html_of(outputs["distlstm.verify"])
    assert html_of(outputs["study = distlstm.tune"]).count("(best)") == 1


def test_progress_is_shown_below_the_cell(outputs: dict[str, list[Any]]) -> None:
    shown = html_of(outputs["trained = distlstm.train"])
    assert "<progress" in shown
    assert "epoch  4 of up to 4: training loss" in shown


def test_a_mistake_is_explained(outputs: dict[str, list[Any]]) -> None:
    (shown,) = next(shown for start, shown in outputs.items() if start.startswith("try:"))
    assert "Did you mean model.hidden_dim?" in shown.text


def test_no_cell_writes_to_the_streams_of_the_notebook_but_what_it_prints(
    outputs: dict[str, list[Any]],
) -> None:
    streams = [o.text for cell in outputs.values() for o in cell if o.output_type == "stream"]
    assert streams == ["Unknown config key model.hidden. Did you mean model.hidden_dim?\n"]


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
