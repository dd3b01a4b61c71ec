"""The ledger of a prediction output: which units of an input already have a finished part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distlstm.data.units import Unit
from distlstm.errors import UserError
from distlstm.stages.prediction.parts import (
    Part,
    PredictionSettings,
    part_name,
    part_names,
    plain,
    read_parts,
)
from distlstm.stages.run.output import Identity
from distlstm.storage import Directory


@dataclass(frozen=True)
class Ledger:
    """The parts of an output directory, by name."""

    done: dict[str, Part]
    """Complete parts of the units of this run."""
    stale: dict[str, Part]
    """Parts of input files of this run that have changed or are now cut differently."""
    others: dict[str, Part]
    """Parts of input files that this run does not have."""

    def parts(self) -> Iterator[Part]:
        """All parts."""
        for group in (self.done, self.stale, self.others):
            yield from group.values()

    def settings_beside(self, settings: PredictionSettings) -> Identity | None:
        """The settings of a part that differ from these, or else these; None without any part."""
        own, found = plain(settings), None
        for part in self.parts():
            found = part.settings
            if found != own:
                return found
        return found


def read_ledger(output: Directory, units: Sequence[Unit]) -> Ledger:
    """Read the footers of all parts.

    Raises:
        UserError: this run would overwrite a part of another input.
    """
    expected = {part_name(unit): unit for unit in units}
    inputs = {unit.file.path for unit in units}
    ledger = Ledger({}, {}, {})
    for name, part in read_parts(output, part_names(output)).items():
        if name in expected and part.is_of(expected[name]):
            ledger.done[name] = part
        elif part.input in inputs:
            ledger.stale[name] = part
        elif name in expected:
            raise UserError(
                f"{output.at(name)} contains the predictions of {part.input}, not of "
                f"{expected[name].file.path}. Choose another --output for this input."
            )
        else:
            ledger.others[name] = part
    return ledger
