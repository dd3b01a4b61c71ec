"""Tests of distlstm.config."""

import ast
from pathlib import Path

import pytest

import distlstm.config
from distlstm.config import Domain, ExperimentConfig, load_config, to_toml
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
        ("model=3", "is a section"),
        ("model.pooling=[]", "at least one item"),
        ('model.pooling=["max", "max"]', "twice"),
        ("model.hidden_dim.x=1", "is a value"),
        ("seed", "section.field=value"),
        ("search.space.text.unit={choice=[1]}", "only [model] and [training]"),
        ("search.space.model.dropout={uniform=[0.5, 0.1]}", "low < high"),
        ("search.space.model.dropout={uniform=[0.5, 3]}", "from 0 to 0.95"),
        ("search.space.model.dropout={gauss=[0, 1]}", "a domain is one of"),
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


@pytest.mark.parametrize("content", ["[model\n", "[modell]\nx = 1\n", "model = 3\n"])
def test_a_bad_file_is_a_user_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(content)
    with pytest.raises(UserError):
        load_config(file)


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
            if isinstance(field, ast.AnnAssign) and node.name != "ExperimentConfig":
                assert isinstance(after, ast.Expr), f"{node.name}.{ast.unparse(field.target)}"
