"""Tests of the address of a study's database: what may be a password is refused unseen."""

import pytest

from distlstm.config import ExperimentConfig, load_config, to_toml
from distlstm.database_url import database_of
from distlstm.errors import UserError
from tests.commands import run

SECRET = "hunter2"
GOOD = [
    "postgresql://ann@db.example.com:5432/studies",
    "postgres://db/studies",
    "postgresql://ann@[::1]:5432/studies?sslmode=verify-full&sslrootcert=/etc/ca.pem",
    "postgresql:///studies?host=/run/postgresql",
    "postgresql://a%40b@one:1,two:2/studies?target_session_attrs=read-write",
]
SECRETS = [
    f"postgresql://ann:{SECRET}@db/studies",
    f"postgresql://ann:{SECRET}#@db/studies",
    f"postgresql://ann:{SECRET}/x@db/studies",
    f"postgresql://ann@db/studies?password={SECRET}",
    f"postgresql://ann@db/studies?sslmode=require&sslpassword={SECRET}",
    f"postgresql://ann@db/studies#{SECRET}",
    f"postgresql+psycopg2://ann:{SECRET}@db/studies",
    f"mysql://ann:{SECRET}@db/studies",
    f"host=db password={SECRET}",
]


@pytest.mark.parametrize("url", GOOD)
def test_an_address_without_a_password_is_kept_as_it_is(url: str) -> None:
    config = load_config(None, [f"search.storage={url}"])
    assert config.search.storage == url
    assert f'storage = "{url}"' in to_toml(config)


@pytest.mark.parametrize("url", SECRETS)
def test_what_may_be_a_password_is_refused_and_not_shown(
    capfd: pytest.CaptureFixture[str], url: str
) -> None:
    with pytest.raises(UserError) as caught:
        ExperimentConfig().with_values({"search.storage": url})
    assert SECRET not in str(caught.value)
    assert "PGPASSWORD or ~/.pgpass" in str(caught.value)
    outcome = run(capfd, "tune", "in.parquet", "--output", "s", "--set", f"search.storage={url}")
    assert outcome.code == 2
    assert SECRET not in outcome.out + outcome.err


def test_who_connects_and_how_does_not_matter_to_which_database_it_is() -> None:
    one = database_of("postgresql://ann@db:5432/studies?sslmode=require&application_name=x")
    assert one == database_of("postgresql://bob@db:5432/studies") == "postgresql://db:5432/studies"
    other = database_of("postgresql:///studies?host=/run/a&sslmode=disable")
    assert other == "postgresql:///studies?host=/run/a"
    assert database_of("") == ""
