"""The ledger of a prediction output: what its parts say of the units of an input."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Ledger:
    """The parts that an output directory holds, by name."""

    done: dict[str, Part]
    """Whole, and of just the units of this run."""
    stale: dict[str, Part]
    """Of inputs of this run that have changed or are cut differently now."""
    others: dict[str, Part]
    """Of inputs that this run does not have."""

    def parts(self) -> Iterator[Part]:
        """All of them."""
        for group in (self.done, self.stale, self.others):
            yield from group.values()

    def settings_beside(self, settings: PredictionSettings) -> Identity | None:
        """The settings of a part that has others than these, else of any; None without a part."""
        own, found = plain(settings), None
        for part in self.parts():
            found = part.settings
            if found != own:
                return found
        return found


def read_ledger(output: Path, units: Sequence[Unit]) -> Ledger:
    """Read the footers of all parts.

    Raises:
        UserError: a part of another input stands where this run would write.
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
                f"{output / name} holds the predictions of {part.input}, not of "
                f"{expected[name].file.path}. Choose another --output for this input."
            )
        else:
            ledger.others[name] = part
    return ledger
