"""`headrace`: run, feed and check the recommender on this machine."""

import sys

import typer
from rich.markup import escape

from cli import (
    audit,
    bench,
    bootstrap,
    capacity,
    chaos,
    check,
    consume,
    demo,
    evaluate,
    jobs,
    movielens,
    produce,
    rules,
    serve,
    stack,
    tune,
)
from cli.common import progress
from deploy.local.stack import StackError

app = typer.Typer(
    help="Headrace: a real-time recommender on Flink. Start with [bold]up[/bold], end with [bold]down[/bold].",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
for module in (
    demo,
    evaluate,
    tune,
    stack,
    serve,
    jobs,
    bootstrap,
    capacity,
    produce,
    consume,
    rules,
    movielens,
    check,
    audit,
    bench,
    chaos,
):
    module.register(app)


def main() -> None:
    """Run the command line; failures that a user can act on become one message and exit status 1."""
    try:
        app(prog_name="headrace")
    except StackError as error:
        progress.print(f"[bold red]Error:[/bold red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
