"""The command `runs`: what commands have written below a directory."""

import click

import distlstm
from distlstm.options import Location, debug_option, json_option


@click.command()
@click.argument("path", type=Location(), metavar="PATH")
@json_option
@debug_option
def runs(path: str, as_json: bool, debug: bool) -> None:  # noqa: ARG001 (main)
    """List the models, studies, language models, evaluations and predictions below PATH."""
    from distlstm.console import results

    found = distlstm.runs(path)
    results.print_json(found.to_json()) if as_json else results.print_runs(found)
