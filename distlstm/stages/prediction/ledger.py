"""The ledger of a prediction output: which units of an input already have a finished part."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from distlstm.data.units import Unit
from distlstm.errors import UserError
from distlstm.stages.prediction.footers import read_parts
from distlstm.stages.prediction.parts import (
    Parts,
    PredictionSettings,
    part_name,
    part_names,
    plain,
)
from distlstm.stages.run.output import Identity
from distlstm.storage import Directory


@dataclass(frozen=True)
class Ledger:
    """The parts of an output directory."""

    done: Parts = field(default_factory=Parts)
    """Complete parts of the units of this run."""
    stale: Parts = field(default_factory=Parts)
    """Parts of input files of this run that have changed or are now cut differently."""
    others: Parts = field(default_factory=Parts)
    """Parts of input files that this run does not have."""

    def settings_beside(self, settings: PredictionSettings) -> Identity | None:
        """The settings of a part that differ from these, or else these; None without any part."""
        own, found = plain(settings), None
        for part in chain(self.done, self.stale, self.others):
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
    ledger = Ledger()
    for part, sums in read_parts(output, part_names(output)):
        unit = expected.get(part.name)
        if unit is not None and part.is_of(unit):
            ledger.done.add(part, sums)
        elif part.input in inputs:
            ledger.stale.add(part, sums)
        elif unit is not None:
            raise UserError(
                f"{output.at(part.name)} contains the predictions of {part.input}, not of "
                f"{unit.file.path}. Choose another --output for this input."
            )
        else:
            ledger.others.add(part, sums)
    return ledger
