"""Tests of distlstm.config."""

import ast
from pathlib import Path

import pytest

import distlstm.config
from distlstm.config import (
    Domain,
    ExperimentConfig,
    ModelConfig,
    SearchConfig,
    TextConfig,
    TrainingConfig,
    load_config,
    read_config,
    to_toml,
)
from distlstm.errors import UserError


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.hiden_dim=3", "Did you mean model.hidden_dim"),
        ("modle.hidden_dim=3", "Did you mean model"),
        ("model.hidden_dim=0", "from 1 to 8192"),
        ("model.hidden_dim=1.5", "a whole number"),
        ("model.hidden_dim=true", "a whole number"),
        ("model.bidirectional=1", "true or false"),
        ("model.dropout=nan", "from 0 to 0.95"),
        ("model.cell=lsmt", "Did you mean 'lstm'"),
        ("training.frozen_epochs=-1", "at least 0"),
        ("text.vectors=300", "a text"),
        ("model=3", "is a section"),
        ("model.pooling=[]", "at least one item"),
        ('model.pooling=["max", "max"]', "twice"),
        ("model.hidden_dim.x=1", "is a value"),
        ("seed", "section.field=value"),
        ("search.space.text.unit={choice=[1]}", "only [model] and [training]"),
        ("search.space.model.dropout={uniform=[0.5, 0.1]}", "low < high"),
        ("search.space.model.dropout={uniform=[0.5, 3]}", "from 0 to 0.95"),
        ("search.space.model.dropout={gauss=[0, 1]}", "a domain must be one of"),
        ("search.space.training.learning_rate={loguniform=[0, 1]}", "above 0"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(setting: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        load_config(None, [setting])
    assert message in str(raised.value)


def test_settings_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text("[model]\nhidden_dim = 64\nnum_layers = 2\n")
    config = load_config(file, ["model.hidden_dim=32", "model.cell=gru"])
    assert (config.model.hidden_dim, config.model.num_layers, config.model.cell) == (32, 2, "gru")
    assert config.training == ExperimentConfig().training


def test_toml_reads_back_as_the_same_experiment(tmp_path: Path) -> None:
    config = load_config(
        None,
        [
            "seed=7",
            'model.pooling=["attention"]',
            "search.space.training.learning_rate={loguniform=[0.001, 0.01]}",
            "search.space.model.embedding_dim={int=[16, 64]}",
            "search.space.model.dropout={quniform=[0.1, 0.5, 0.1]}",
        ],
    )
    file = tmp_path / "experiment.toml"
    file.write_text(to_toml(config))
    assert load_config(file) == config


def test_what_is_set_outside_of_its_default_domain_is_not_searched() -> None:
    config = load_config(None, ["training.learning_rate=0.0005", "model.hidden_dim=64"])
    assert set(config.fixed) == {"training.learning_rate"}
    assert set(config.searched) == set(config.search.space) - {"training.learning_rate"}
    own = "search.space.training.learning_rate={uniform=[0.01, 0.02]}"
    assert not load_config(None, ["training.learning_rate=0.0005", own]).fixed


def test_a_search_space_may_be_written_quoted_or_nested(tmp_path: Path) -> None:
    quoted, nested = tmp_path / "a.toml", tmp_path / "b.toml"
    quoted.write_text('[search.space]\n"model.hidden_dim" = {choice = [8, 16]}\n')
    nested.write_text("[search.space.model]\nhidden_dim = {choice = [8, 16]}\n")
    expected = {"model.hidden_dim": Domain(kind="choice", values=(8, 16))}
    assert load_config(quoted).search.space == load_config(nested).search.space == expected


def test_every_field_says_what_it_is() -> None:
    tree = ast.parse(Path(distlstm.config.__file__).read_text())
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or not node.name.endswith("Config"):
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=False):
            if isinstance(field, ast.AnnAssign) and "Config" not in ast.unparse(field.annotation):
                assert isinstance(after, ast.Expr), f"{node.name}.{ast.unparse(field.target)}"


def set_in_space(parameter: str, domain: str) -> Domain:
    """The domain that `--set search.space.PARAMETER=DOMAIN` gives the parameter."""
    config = load_config(None, [f"search.space.{parameter}={domain}"])
    return config.search.space[parameter]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("xyz=1", "Known: seed, validation_fraction, text, model, training, pretraining, search"),
        ("text.max_token=5", "Did you mean text.max_tokens"),
        ("training.rows_per_batch='8'", "a whole number, not '8'"),
        ("model.dropout='high'", "a number, not 'high'"),
        ("model.dropout=true", "a number, not True"),
        ("model.dropout=inf", "from 0 to 0.95"),
        ("model.dropout=-0.1", "from 0 to 0.95"),
        ("training.clip_norm=nan", "at least 1e-06"),
        ("seed=-1", "from 0 to"),
        ("seed=2147483648", "from 0 to"),
        ("seed=" + "1" * 5000, "a whole number"),
        ("training.learning_rate=" + "1" * 400, "not inf"),
        ("validation_fraction=0", "from 0.001 to 0.5"),
        ("text.unit=1", "one of word, character"),
        ('model.pooling=["max", "median"]', "one of last, max, mean, attention"),
        ("model.pooling=3", "a list"),
        ("=3", "Unknown config key"),
        ("model.=3", "Unknown config key"),
        ("search.space=3", "a section with at least one parameter"),
        ("search.space={}", "a section with at least one parameter"),
    ],
)
def test_a_setting_that_nothing_can_use_is_answered_in_one_sentence(
    setting: str, message: str
) -> None:
    with pytest.raises(UserError) as raised:
        load_config(None, [setting])
    assert message in str(raised.value)
    assert setting.partition("=")[0] in str(raised.value)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.learning_rate=1", TrainingConfig(learning_rate=1.0)),
        (" training.steps = 1_000 ", TrainingConfig(steps=1000)),
        ("training.precision=bf16", TrainingConfig(precision="bf16")),
        ("training.precision='bf16'", TrainingConfig(precision="bf16")),
        ("model.pooling=max", ModelConfig(pooling=("max",))),
        ("model.bidirectional=false", ModelConfig(bidirectional=False)),
        ("text.max_tokens=100000", TextConfig(max_tokens=100_000)),
        ("search.num_trials=3", SearchConfig(num_trials=3)),
    ],
)
def test_a_setting_may_be_written_as_in_the_file_or_bare(setting: str, expected: object) -> None:
    config = load_config(None, [setting])
    assert expected in (config.text, config.model, config.training, config.search)
    assert type(config.training.learning_rate) is float


def test_of_two_settings_of_one_name_the_last_counts() -> None:
    assert load_config(None, ["seed=1", "model.num_layers=2", "seed=5"]).seed == 5


@pytest.mark.parametrize(
    ("parameter", "domain", "expected"),
    [
        ("model.cell", '{choice = ["lstm", "gru"]}', Domain(kind="choice", values=("lstm", "gru"))),
        ("model.num_layers", "{choice = 2}", Domain(kind="choice", values=(2,))),
        ("model.dropout", "{uniform = [0, 0.5]}", Domain(kind="uniform", values=(0, 0.5))),
        (
            "training.learning_rate",
            "{loguniform = [1e-4, 1e-2]}",
            Domain(kind="loguniform", values=(1e-4, 1e-2)),
        ),
        ("model.hidden_dim", "{int = [8, 64]}", Domain(kind="int", values=(8, 64))),
        (
            "model.token_dropout",
            "{quniform = [0.0, 0.5, 0.1]}",
            Domain(kind="quniform", values=(0.0, 0.5, 0.1)),
        ),
    ],
)
def test_a_parameter_may_be_given_a_domain_of_every_kind(
    parameter: str, domain: str, expected: Domain
) -> None:
    assert set_in_space(parameter, domain) == expected


def test_a_domain_that_is_set_joins_those_that_are_there() -> None:
    space = load_config(None, ["search.space.model.cell={choice=['gru']}"]).search.space
    assert set(space) == {*ExperimentConfig().search.space, "model.cell"}


@pytest.mark.parametrize(
    ("parameter", "domain", "message"),
    [
        ("model.dropout", "{uniform = [0.1]}", "[low, high]"),
        ("model.dropout", "{uniform = [0.1, 0.2, 0.1]}", "[low, high]"),
        ("model.dropout", "{uniform = ['a', 'b']}", "[low, high]"),
        ("model.dropout", "{uniform = [0.3, 0.3]}", "low < high"),
        ("model.dropout", "{uniform = [nan, 0.3]}", "low < high"),
        ("model.dropout", "{quniform = [0.1, 0.5]}", "[low, high, step]"),
        ("model.dropout", "{quniform = [0.1, 0.5, 0]}", "step above 0"),
        ("model.dropout", "{uniform = [0.1, 0.5], choice = [0.3]}", "must look like"),
        ("model.dropout", "0.5", "must look like"),
        ("model.dropout", "[0.1, 0.5]", "must look like"),
        ("model.cell", "{choice = ['lstm', 'gpu']}", "Did you mean 'gru'"),
        ("model.cell", "{int = [0, 1]}", "one of lstm"),
        ("model.hidden_dims", "{choice = [1]}", "Did you mean model.hidden_dim"),
        ("model.hidden_dim", "{choice = []}", "at least one value"),
        ("model.dropout", "{int = [0.1, 0.5]}", "whole numbers [low, high]"),
        ("model.hidden_dim", "{uniform = [8, 64]}", "a whole number, not 8.0"),
        ("model.hidden_dim", "{quniform = [8, 64, 0.5]}", "a whole number, not 8.0"),
        ("training.workers_per_trial", "{choice = [1, 2]}", "the same for all trials"),
        ("model.dropout", "{quniform = [0.1, 0.5, nan]}", "[low, high, step]"),
        ("training.clip_norm", "{uniform = [0.1, inf]}", "[low, high]"),
        ("seed", "{int = [1, 9]}", "only [model] and [training]"),
    ],
)
def test_a_domain_that_no_search_can_use_is_refused_before_the_search(
    parameter: str, domain: str, message: str
) -> None:
    with pytest.raises(UserError) as raised:
        set_in_space(parameter, domain)
    assert message in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"# only a comment\n", b"[model]\n", b"\r\nseed = 0\r\n"])
def test_what_a_file_leaves_out_is_the_default(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "experiment.toml"
    file.write_bytes(content)
    assert load_config(file) == load_config(None) == ExperimentConfig()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed = 1\nseed = 2\n", "not valid TOML"),
        (b"name = '\xff'\n", "not valid TOML"),
        (b"[model\n", "not valid TOML"),
        (b"model = 3\n", "model must be a section"),
        (b"seed = " + b"1" * 5000, "not valid TOML"),
        (b"[model]\nhiden_dim = 3\n", "Did you mean model.hidden_dim"),
        (b"[model.hidden_dim]\nx = 3\n", "model.hidden_dim must be a whole number"),
        (b"[search.space.text]\nunit = 3\n", "only [model] and [training]"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(UserError) as raised:
        load_config(file)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="Cannot read the config file"):
        load_config(tmp_path / name)


def test_the_default_experiment_survives_toml_and_plain_tables(tmp_path: Path) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text(to_toml(ExperimentConfig()))
    assert load_config(file) == ExperimentConfig()
    assert read_config(ExperimentConfig().to_dict()) == ExperimentConfig()


def test_lists_as_choices_survive_toml(tmp_path: Path) -> None:
    choices = "search.space.model.pooling={choice=[['max'], ['last', 'mean']]}"
    config = load_config(None, [choices, "training.clip_norm=inf", "training.learning_rate=1e-8"])
    file = tmp_path / "experiment.toml"
    file.write_text(to_toml(config))
    assert load_config(file) == config


def test_changing_values_leaves_the_experiment_they_came_from_as_it_was() -> None:
    before = ExperimentConfig()
    after = before.with_values({"model.hidden_dim": 7, "training.steps": 9, "seed": 3})
    assert (after.model.hidden_dim, after.training.steps, after.seed) == (7, 9, 3)
    assert before == ExperimentConfig()
    assert before.with_values({}) == before
