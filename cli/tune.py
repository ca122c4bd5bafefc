"""`headrace tune`: searches the hyper-parameters on one's own events, and writes them as a configuration."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.common import console, progress
from cli.evaluate import ItemsFile, read_for

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from jobs.settings import Settings


def _ask(trial: "BaseTrial") -> dict[str, dict[str, Any]]:
    """The sections and fields of the configuration that are searched, and within which bounds."""
    return {
        "profiles": {"history_length": trial.suggest_int("history_length", 20, 200, log=True)},
        "models": {
            "factorization_weight": trial.suggest_float("factorization_weight", 0.03, 3.0, log=True),
            "popularity_weight": trial.suggest_float("popularity_weight", 0.001, 0.3, log=True),
            "popularity_half_life_days": trial.suggest_float("popularity_half_life_days", 1.0, 100.0, log=True),
            "linear_regularization": trial.suggest_float("linear_regularization", 20.0, 1000.0, log=True),
            "candidates": trial.suggest_int("candidates", 30, 150, log=True),
            "blend_learning_rate": trial.suggest_float("blend_learning_rate", 0.03, 1.0, log=True),
        },
    }


def _with(settings: "Settings", fields: dict[str, dict[str, Any]]) -> "Settings":
    sections = {name: getattr(settings, name).model_copy(update=values) for name, values in fields.items()}
    return settings.model_copy(update=sections)


def register(app: typer.Typer) -> None:
    """Add this module's command."""

    @app.command()
    def tune(
        file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Events as for `evaluate`.")],
        out: Annotated[Path, typer.Option(help="Where the configuration goes; an old file is replaced.")] = Path(
            "headrace.tuned.toml"
        ),
        trials: Annotated[
            int, typer.Option(min=1, help="How many settings to try; the first is the present one.")
        ] = 30,
        k: Annotated[int, typer.Option(min=1, help="Length of the lists.")] = 20,
        exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="Leave out what a user had before.")] = False,
        items: ItemsFile = None,
        config: Annotated[Path | None, typer.Option(exists=True, help="The configuration to begin with.")] = None,
    ) -> None:
        """Search the hyper-parameters for the best nDCG over the second quarter of the file; its second half stays
        unseen, for `evaluate --config`."""
        import optuna
        import torch

        from config.loading import SettingsError
        from jobs.settings import load_settings
        from model.evaluate import evaluate

        torch.set_num_threads(1)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            settings = load_settings(config)
        except SettingsError as error:
            raise typer.BadParameter(str(error)) from error
        events, catalogue = read_for(settings, file, items)
        first_half = events[: len(events) // 2]

        def quality(trial: "BaseTrial") -> float:
            tried = _with(settings, _ask(trial))
            options = tried.profile_options(), tried.blend_options()
            return evaluate(first_half, k, exclude_seen, *options, catalogue=catalogue).all.means()["ndcg"]

        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=1))
        present = settings.profiles.model_dump() | settings.models.model_dump()
        names = [name for fields in _ask(optuna.trial.FixedTrial(present)).values() for name in fields]
        study.enqueue_trial({name: present[name] for name in names})
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=progress) as bar:
            task = bar.add_task("nDCG", total=trials)
            for _ in range(trials):
                study.optimize(quality, n_trials=1)
                bar.update(task, advance=1, description=f"nDCG@{k} {study.best_value:.4f}")
        first = study.trials[0].value
        lines = [f"# nDCG@{k} over the second quarter of {file.name}: {study.best_value:.4f}, {first:.4f} before."]
        for section, fields in _ask(optuna.trial.FixedTrial(study.best_params)).items():
            lines += ["", f"[{section}]", *(f"{name} = {value!r}" for name, value in fields.items())]
        out.write_text("\n".join(lines) + "\n")
        console.print("\n".join(lines), markup=False, highlight=False)
