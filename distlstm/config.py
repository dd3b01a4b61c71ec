"""The configuration of an experiment: a dataclass per section of its TOML file, and its reader.

Every field is a chosen value. Measured values (vocabulary size, number of labels) are not here, nor
are the workers and GPUs of a command, so one file works on a laptop and on a cluster.
"""

import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from distlstm.database_url import DatabaseUrl
from distlstm.errors import UserError
from distlstm.storage import read_at

Pooling = Literal["last", "max", "mean", "attention"]


@dataclass(frozen=True)
class Range:
    """Inclusive bounds of a number."""

    minimum: float
    maximum: float = float("inf")

    def __str__(self) -> str:
        """The bounds in words: `at least 1`, `from 0 to 0.9`."""
        if self.maximum == float("inf"):
            return f"at least {self.minimum:g}"
        return f"from {self.minimum:g} to {self.maximum:g}"

    def check(self, value: Any, where: str) -> Any:
        """Return a number that is within the bounds; else raise a UserError."""
        if not self.minimum <= value <= self.maximum:
            raise UserError(f"{where} must be {self}, not {value!r}.")
        return value


Count = Annotated[int, Range(1)]
Dropout = Annotated[float, Range(0, 0.95)]


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """`[text]`: how a text becomes token ids."""

    normalization: Literal["nfkc", "none"] = "nfkc"
    """With "nfkc", texts that look the same are the same: without invisible characters (byte order
    mark, soft hyphen), and in Unicode's form NFKC (full-width letters become ASCII)."""
    lowercase: bool = True
    """Lowercase a text before splitting it."""
    unit: Literal["word", "character"] = "word"
    """What a token is. With "word", Han and kana are still split by character."""
    max_tokens: Annotated[int, Range(1, 100_000)] = 1_000
    """Tokens read from each text; the rest is ignored."""
    max_vocabulary: Annotated[int, Range(1, 10_000_000)] = 100_000
    """Largest number of tokens in the vocabulary; the most frequent are kept."""
    min_count: Count = 2
    """Tokens that occur less often in the training split are unknown."""
    vectors: str = ""
    """File of pretrained token vectors for the embedding (text format of GloVe, word2vec or
    fastText, plain or .gz); empty for none. Their dimension must equal `model.embedding_dim`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """`[model]`: the classifier, from the embedding to the logits."""

    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    """Recurrent cell: with gates and a cell state (lstm), with gates only (gru), or plain (rnn)."""
    embedding_dim: Annotated[int, Range(1, 4096)] = 128
    """Size of a token's vector."""
    hidden_dim: Annotated[int, Range(1, 8192)] = 128
    """Size of the hidden state of each direction."""
    num_layers: Annotated[int, Range(1, 16)] = 1
    """Number of stacked recurrent layers."""
    bidirectional: bool = True
    """Read each text in the forward and in the backward direction."""
    pooling: tuple[Pooling, ...] = ("last", "max", "mean")
    """How the states of a text become one vector; several results are concatenated."""
    dropout: Dropout = 0.5
    """Dropout rate of the pooled vector."""
    state_dropout: Dropout = 0.4
    """Dropout rate of the inputs of each recurrent layer: whole features of a row."""
    token_dropout: Dropout = 0.1
    """Dropout rate of whole token vectors."""
    wide: bool = True
    """Ensemble with a linear model on n-grams; its ensemble weight is fitted on validation rows."""
    cascade: Annotated[float, Range(0, 0.5)] = 0.001
    """Early exit: rows on which the linear model is confident skip the recurrent layers. The value
    is the largest share of the validation rows whose label this may change; 0 turns it off."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """`[training]`: how the weights are learnt."""

    steps: Count = 1_200
    """Target number of optimizer steps, from which the number of epochs follows."""
    min_epochs: Count = 4
    """Smallest number of epochs, however many rows there are."""
    max_epochs: Count = 12
    """Largest number of epochs, however few rows there are."""
    patience: Count = 4
    """Epochs without a better validation metric after which training stops."""
    learning_rate: Annotated[float, Range(1e-8, 10)] = 3e-3
    """Peak learning rate of the schedule."""
    weight_decay: Annotated[float, Range(0, 10)] = 0.01
    """Decoupled weight decay (AdamW)."""
    clip_norm: Annotated[float, Range(1e-6)] = 1.0
    """Largest gradient norm of a step; larger gradients are scaled down to it."""
    tokens_per_batch: Annotated[int, Range(0)] = 0
    """Most tokens of a step with padding, over all workers; 0 means 64 per row, at least 8,192."""
    rows_per_batch: Annotated[int, Range(0)] = 0
    """Most rows of a step, over all workers; 0 means a hundredth of the training rows, from 16 to
    128, or from 256,000 rows on a two-thousandth, up to 256."""
    label_smoothing: Annotated[float, Range(0, 0.9)] = 0.1
    """Share of the target spread evenly over all labels; unused if the labels are probabilities."""
    frozen_epochs: Annotated[int, Range(0)] = 0
    """Number of first epochs in which the embedding is not trained."""
    pretrained_rate: Annotated[float, Range(0, 1)] = 0.0
    """Factor of the learning rate of embedding and recurrent layers that begin with a language
    model; 0 means 0.3 with fewer than 5,000 training rows, else 1."""
    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    """Validation metric of the best epoch. With "macro_f1", rare labels are also predicted more
    often: scores are shifted against the frequency of the labels, as far as it pays on validation
    rows. Sets of labels have a threshold for each label, and always use F1."""
    class_weights: Literal["none", "balanced"] = "none"
    """With "balanced", the weight of a row is rows / (labels * rows of its label), so that every
    label has the same influence. The best epoch then has the highest macro recall, not accuracy."""
    weight_column: str = ""
    """Column of the training data with the weight of each row; empty for none."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the recurrent layers; "auto" is bf16 if the hardware supports it."""
    workers_per_trial: Count = 1
    """Data-parallel workers of each trial of `tune` (`train` has `--workers`)."""
    gpus_per_trial: Annotated[float, Range(0)] = 0.0
    """GPUs of each trial of `tune`, if GPUs are used: 0.25 puts four trials on one GPU; 0 gives
    each worker one GPU."""


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """`[pretraining]`: how a language model is learnt from rows without labels."""

    steps: Count = 20_000
    """Target number of optimizer steps, from which the number of epochs follows."""
    max_epochs: Count = 10
    """Largest number of epochs, however few rows there are."""
    learning_rate: Annotated[float, Range(1e-8, 10)] = 3e-3
    """Peak learning rate of the schedule."""
    weight_decay: Annotated[float, Range(0, 10)] = 0.01
    """Decoupled weight decay (AdamW)."""
    clip_norm: Annotated[float, Range(1e-6)] = 1.0
    """Largest gradient norm of a step; larger gradients are scaled down to it."""
    dropout: Dropout = 0.1
    """Dropout rate of the inputs of each recurrent layer and of the last states."""
    tokens_per_batch: Annotated[int, Range(0)] = 0
    """Most tokens of a step with padding, over all workers; 0 means a 300th of all tokens, from 512
    to 4,096."""
    tokens_per_window: Annotated[int, Range(3, 100_000)] = 128
    """Longer texts are cut into windows of so many tokens; each is read by itself."""
    sampled_tokens: Annotated[int, Range(1, 100_000)] = 1_024
    """Draws of tokens with which the right one is compared in each step."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the recurrent layers; "auto" is bf16 if the hardware supports it."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """The values that a search may give to one parameter."""

    kind: Literal["choice", "uniform", "loguniform", "int", "quniform"]
    """`choice` of listed values; `uniform` and `loguniform` in [low, high]; `int` in [low, high],
    both included; `quniform` in [low, high, step], whole numbers if all three are."""
    values: tuple[Any, ...]
    """The listed values, or the bounds."""

    def has(self, value: Any) -> bool:
        """Whether the value is listed or within the bounds."""
        if self.kind == "choice":
            return value in self.values
        return bool(self.values[0] <= value <= self.values[1])


def _default_space() -> dict[str, Domain]:
    return {
        "model.hidden_dim": Domain(kind="choice", values=(64, 128, 256)),
        "model.num_layers": Domain(kind="choice", values=(1, 2)),
        "model.dropout": Domain(kind="uniform", values=(0.2, 0.6)),
        "model.embedding_dim": Domain(kind="choice", values=(64, 128, 256)),
        "training.learning_rate": Domain(kind="loguniform", values=(1e-3, 1e-2)),
    }


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """`[search]`: what `distlstm tune` tries."""

    algorithm: Literal["tpe", "random", "grid"] = "tpe"
    """How the next trial is proposed: by Optuna's tree-structured Parzen estimator (tpe), at random
    (random), or from the grid of all listed values, in order (grid)."""
    metric: Literal["macro_f1", "accuracy", "loss"] = "macro_f1"
    """Validation metric by which trials are ranked."""
    num_trials: Count = 12
    """Number of trials in a study."""
    grace_epochs: Count = 3
    """Epochs of every trial before the scheduler (ASHA) may stop it. In the first epochs the
    learning rate still rises, so their metric predicts the final one poorly."""
    reduction_factor: Annotated[int, Range(2, 100)] = 3
    """At each rung, one trial in this many continues."""
    prefer: Literal["best", "fast"] = "best"
    """Which trial becomes `best/`: the best by the metric, or the fastest within `tolerance`."""
    tolerance: Annotated[float, Range(0, 100)] = 0.5
    """With "fast", how far from the best a trial may be, in points (hundredths of the metric)."""
    storage: Annotated[str, DatabaseUrl()] = ""
    """Database of the study, such as `postgresql://user@host/database`, which may have many; empty:
    a file in STUDY. The password is read from PGPASSWORD or ~/.pgpass, and must not be here."""
    space: Mapping[str, Domain] = field(default_factory=_default_space)
    """`[search.space]`: parameter (`model.hidden_dim`) -> domain (`{choice = [64, 128]}`)."""


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """All chosen values of an experiment."""

    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Seed of the initial weights, dropout, the order of batches and the proposals of a search."""
    validation_fraction: Annotated[float, Range(0.001, 0.5)] = 0.1
    """Share of the rows held out if no validation data is given, chosen by a hash of the text."""
    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    search: SearchConfig = field(default_factory=SearchConfig)

    @property
    def searched(self) -> Mapping[str, Domain]:
        """The search space without the `fixed` parameters."""
        fixed = self.fixed
        return {name: domain for name, domain in self.search.space.items() if name not in fixed}

    @property
    def fixed(self) -> Mapping[str, str]:
        """Parameters of the search space that are not searched, and why.

        Pretrained vectors fix the embedding size. A value set outside the default domain is kept
        as given.
        """
        defaults, reasons = _default_space(), {}
        for name, domain in self.search.space.items():
            value = self.value_of(name)
            if name == "model.embedding_dim" and self.text.vectors:
                reasons[name] = "is fixed by text.vectors"
            elif domain == defaults.get(name) and not domain.has(value):
                reasons[name] = f"is {value}, outside its default domain"
        return reasons

    def value_of(self, name: str) -> Any:
        """The value of a parameter, by dotted name (`model.hidden_dim`)."""
        section, _, key = name.partition(".")
        return getattr(getattr(self, section), key)

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """A copy with some values changed, by dotted name (`model.hidden_dim`).

        Raises:
            UserError: a name is unknown, or a value has a wrong type or is out of range.
        """
        changed = self
        for name, value in values.items():
            changed = replace(changed, **_nested_change(changed, name, name.split("."), value))
        return changed

    def to_dict(self) -> dict[str, Any]:
        """The experiment as plain tables, as in `model.json`; `read_config` reads them."""
        tables = asdict(self)
        tables["search"]["space"] = {
            name: {domain.kind: list(domain.values)} for name, domain in self.search.space.items()
        }
        return tables


def load_config(location: str | Path | None, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """Read a TOML file (or the defaults), then apply `section.field=value` overrides.

    Args:
        location: path or URI of the file.
        overrides: applied in this order.

    Raises:
        UserError: a key is unknown or a value is wrong; the message has the nearest valid name.
    """
    config = ExperimentConfig() if location is None else read_config(_parse_toml(location))
    return config.with_values(dict(_parse_override(text) for text in overrides))


def read_config(tables: Mapping[str, Any]) -> ExperimentConfig:
    """Build an experiment from parsed tables.

    Raises:
        UserError: a key is unknown or a value is wrong.
    """
    config: ExperimentConfig = _read_table(ExperimentConfig, tables, where="")
    return config


def _parse_toml(location: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_at(location).decode("utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"Cannot read the config file {location}: {reason}.") from error
    except ValueError as error:  # also for a number with too many digits
        raise UserError(f"{location} is not valid TOML: {error}.") from error


def _parse_override(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"--set needs section.field=value, not {text!r}.")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except ValueError:
        return name.strip(), value.strip()


def _nested_change(node: Any, full_name: str, path: list[str], value: Any) -> dict[str, Any]:
    """The keyword arguments with which `replace` makes the change in `node`."""
    key, *rest = path
    where = full_name.removesuffix(".".join(path)).rstrip(".")
    _check_names(type(node), [key], where=where)
    child = getattr(node, key)
    if hasattr(child, "__dataclass_fields__"):
        if not rest:
            raise UserError(f"{full_name} is a section; set one of its fields: {_names(child)}.")
        return {key: replace(child, **_nested_change(child, full_name, rest, value))}
    if rest:
        if key != "space":
            raise UserError(
                f"{_join(where, key)} is a value, not a section; {full_name} cannot be set."
            )
        return {key: {**child, ".".join(rest): _read_domain(value, full_name)}}
    return {key: _read_value(_hints(type(node))[key], value, where=full_name)}


def _read_table(cls: type[Any], table: Mapping[str, Any], *, where: str) -> Any:
    if not isinstance(table, Mapping):
        raise UserError(f"{where} must be a section, not {table!r}.")
    _check_names(cls, table, where=where)
    hints = _hints(cls)
    return cls(
        **{
            name: _read_value(hints[name], value, where=_join(where, name))
            for name, value in table.items()
        }
    )


def _check_names(cls: type[Any], names: Iterable[str], *, where: str) -> None:
    known = [f.name for f in fields(cls)]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"Did you mean {_join(where, near[0])}?" if near else f"Known: {_names(cls)}."
            raise UserError(f"Unknown config key {_join(where, name)}. {hint}")


def _read_value(hint: Any, value: Any, *, where: str) -> Any:
    """Check a value against its type hint and range; return it in its final type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return arguments[1].check(_read_value(arguments[0], value, where=where), where)
    if origin is Literal:
        return _one_of(arguments, value, where)
    if origin is tuple:
        return _read_list(arguments[0], value, where)
    if origin in (Union, UnionType):
        return _read_value(arguments[0], value, where=where)
    if hasattr(hint, "__dataclass_fields__"):
        return _read_table(hint, value, where=where)
    if origin is not None and issubclass(origin, Mapping):
        return _read_space(value, where)
    return _read_scalar(hint, value, where)


def _read_scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and type(value) is int:
        return float(str(value))  # a number too large for a float becomes infinite, as 1e400 does
    if type(value) is not kind:
        raise UserError(f"{where} must be {_KIND_NAMES[kind]}, not {value!r}.")
    return value


_KIND_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


def _one_of(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value in choices:
        return value
    near = get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(f"{where} must be one of {', '.join(choices)}, not {value!r}.{hint}")


def _read_list(item_hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items:
        raise UserError(f"{where} must be a list with at least one item, not {value!r}.")
    if len(set(map(str, items))) < len(items):
        raise UserError(f"{where} has an item twice: {value!r}.")
    return tuple(_read_value(item_hint, item, where=where) for item in items)


def _read_space(table: Any, where: str) -> dict[str, Domain]:
    if not isinstance(table, Mapping) or not table:
        raise UserError(f"{where} must be a section with at least one parameter.")
    flat: dict[str, Any] = {}
    for name, entry in table.items():
        nested = name in ("model", "training") and isinstance(entry, Mapping)
        flat.update({f"{name}.{k}": v for k, v in entry.items()} if nested else {name: entry})
    return {name: _read_domain(entry, f"{where}.{name}") for name, entry in flat.items()}


_SAME_FOR_ALL_TRIALS = {
    "training.weight_column",
    "training.workers_per_trial",
    "training.gpus_per_trial",
}


def _read_domain(entry: Any, where: str) -> Domain:
    """Read `{kind = [values]}`, and check its possible proposals against the parameter's field."""
    _, _, parameter = where.partition("search.space.")
    if not parameter.startswith(("model.", "training.")):
        raise UserError(f"{where}: only [model] and [training] fields can be searched.")
    if parameter in _SAME_FOR_ALL_TRIALS:
        raise UserError(f"{where} is the same for all trials, so it cannot be searched.")
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise UserError(f"{where} must look like {{choice = [64, 128]}}, not {entry!r}.")
    kind, values = next(iter(entry.items()))
    kinds = get_args(_hints(Domain)["kind"])
    if kind not in kinds:
        raise UserError(f"{where}: a domain must be one of {', '.join(kinds)}, not {kind!r}.")
    values = tuple(values) if isinstance(values, list | tuple) else (values,)
    for proposal in _possible_proposals(kind, values, where):
        ExperimentConfig().with_values({parameter: proposal})
    return Domain(kind=kind, values=values)


def _possible_proposals(kind: str, values: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    """All listed values, or both bounds in the type in which a search proposes values."""
    if kind == "choice":
        if not values:
            raise UserError(f"{where}: choice needs at least one value.")
        return values
    _check_bounds(kind, values, where)
    whole = kind in ("int", "quniform") and all(type(value) is int for value in values)
    return values[:2] if whole else tuple(map(float, values[:2]))


def _check_bounds(kind: str, values: tuple[Any, ...], where: str) -> None:
    wanted = 3 if kind == "quniform" else 2
    types = (int,) if kind == "int" else (int, float)
    numbers = all(type(value) in types and abs(value) <= sys.float_info.max for value in values)
    if len(values) != wanted or not numbers or not values[0] < values[1]:
        form = "[low, high, step]" if wanted == 3 else "[low, high]"
        noun = "whole numbers" if kind == "int" else "numbers"
        raise UserError(f"{where}: {kind} needs {noun} {form} with low < high, not {list(values)}.")
    if kind == "loguniform" and values[0] <= 0:
        raise UserError(f"{where}: loguniform needs bounds above 0, not {list(values)}.")
    if kind == "quniform" and values[2] <= 0:
        raise UserError(f"{where}: quniform needs a step above 0, not {values[2]}.")


def to_toml(config: ExperimentConfig) -> str:
    """The experiment as TOML text, which `load_config` reads back to an equal one."""
    tables = config.to_dict()
    space = tables["search"].pop("space")
    lines = [f"{key} = {_toml(value)}" for key, value in tables.items() if not _is_table(value)]
    for name, table in tables.items():
        if _is_table(table):
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    lines += ["", "[search.space]"]
    for name, domain in space.items():
        ((kind, values),) = domain.items()
        lines.append(f'"{name}" = {{ {kind} = {_toml(values)} }}')
    return "\n".join(lines) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)


def _hints(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _names(node: Any) -> str:
    return ", ".join(f.name for f in fields(node))


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
