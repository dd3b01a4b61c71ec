"""The search space of a study, in terms of Optuna."""

import json
from collections.abc import Mapping
from decimal import Decimal
from itertools import product
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from distlstm.config import Domain, ExperimentConfig
from distlstm.errors import UserError

_DIGITS = 12

Parameters = dict[str, Any]
"""Values by dotted name (`model.hidden_dim`)."""


class SearchSpace:
    """Domains by parameter. Values that are lists are JSON text in Optuna, which has no lists."""

    def __init__(self, space: Mapping[str, Domain]) -> None:
        self.space = dict(space)
        self.distributions = {name: _distribution(domain) for name, domain in space.items()}

    def encode(self, parameters: Parameters) -> Parameters:
        """Convert values of the config to those that Optuna stores."""
        return {name: _encode(value) for name, value in parameters.items()}

    def decode(self, parameters: Parameters) -> Parameters:
        """Convert values that Optuna stores to those of the config."""
        return {
            name: next((v for v in self._listed(name) if _encode(v) == value), value)
            for name, value in parameters.items()
        }

    def inside(self, parameters: Parameters) -> Parameters:
        """The parameters that are in this space and have a value inside their domain."""
        return {
            name: value
            for name, value in parameters.items()
            if name in self.space and self._may_propose(name, value)
        }

    def point_of(self, config: ExperimentConfig) -> Parameters:
        """The values of a config for these parameters, as far as they are inside their domains."""
        return self.inside({name: config.value_of(name) for name in self.space})

    def grid(self) -> list[Parameters]:
        """All combinations of the parameters' values.

        Raises:
            UserError: the domain of a parameter is continuous.
        """
        values = [self._grid_values(name) for name in self.space]
        return [dict(zip(self.space, point, strict=True)) for point in product(*values)]

    def _listed(self, name: str) -> tuple[Any, ...]:
        return self.space[name].values if self.space[name].kind == "choice" else ()

    def _may_propose(self, name: str, value: Any) -> bool:
        distribution = self.distributions[name]
        if isinstance(distribution, CategoricalDistribution):
            return _encode(value) in distribution.choices
        if type(value) not in (int, float):
            return False
        return bool(distribution.low <= value <= distribution.high)

    def _grid_values(self, name: str) -> list[Any]:
        distribution = self.distributions[name]
        if isinstance(distribution, CategoricalDistribution):
            return list(self._listed(name))
        if distribution.step is None:
            raise UserError(
                f"search.space.{name} takes any value of a range, so it has no grid. Use choice, "
                "int or quniform, or set search.algorithm to tpe."
            )
        low, step = distribution.low, distribution.step
        count = round((distribution.high - low) / step) + 1
        return [round(low + i * step, _DIGITS) for i in range(count)]


def _distribution(domain: Domain) -> BaseDistribution:
    values = domain.values
    match domain.kind:
        case "choice":
            return CategoricalDistribution(list(map(_encode, values)))
        case "int":
            return IntDistribution(*values)
        case "quniform":
            if all(type(value) is int for value in values):
                low, high, step = values
                return IntDistribution(low, low + (high - low) // step * step, step=step)
            low, high, step = (Decimal(str(value)) for value in values)
            last = low + (high - low) // step * step
            return FloatDistribution(float(low), float(last), step=float(step))
        case "uniform" | "loguniform":
            return FloatDistribution(*values, log=domain.kind == "loguniform")


def _encode(value: Any) -> Any:
    return json.dumps(list(value)) if isinstance(value, list | tuple) else value
