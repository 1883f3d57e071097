"""Train a single run to its end: progress, tracking, checkpoints, divergence and interruption."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_tune.errors import FsdTuneError
from fsd_tune.models.folder import hold_output
from fsd_tune.progress import Display
from fsd_tune.settings.wandb_section import Wandb
from fsd_tune.tracking.tracker import tracked
from fsd_tune.training.distiller import Distiller
from fsd_tune.training.unfinished import UnfinishedRun, identity_of


@dataclass(frozen=True)
class SingleRun:
    """A training run that is not a trial of a search.

    Attributes:
        kind: `teacher` or `distill`; W&B's job type.
        output: the folder that is written at the end; checkpoints lie beside it until then.
        overwrite: a model in the output folder may be replaced.
        wandb: where the run is tracked.
        facts: W&B's configuration of the run, flat.
        depends_on: what the result depends on beyond data, configuration and starting weights; JSON values.
    """

    kind: str
    output: Path
    overwrite: bool
    wandb: Wandb
    facts: Mapping[str, Any]
    depends_on: tuple[Any, ...]


def train_to_end(
    run: SingleRun,
    distiller: Distiller,
    display: Display,
    write: Callable[[list[dict[str, Any]]], dict[str, Any]],
    summarise: Callable[[list[dict[str, Any]]], Mapping[str, Any]] = lambda reports: {},
) -> dict[str, Any]:
    """Train to the last evaluation, from the checkpoint of the same run if it was interrupted, and write the output.

    Args:
        run: what is trained.
        distiller: at step 0.
        display: shows progress and a line for each evaluation.
        write: writes the output from the reports and returns its record.
        summarise: gives W&B's summary of the run from its reports.

    Returns:
        The record that `write` returned.

    Raises:
        InputError: another process writes the output.
        FsdTuneError: training diverged; its checkpoints are removed.
    """
    with hold_output(run.output, run.overwrite):
        return _train(run, distiller, display, write, summarise)


def _train(
    run: SingleRun,
    distiller: Distiller,
    display: Display,
    write: Callable[[list[dict[str, Any]]], dict[str, Any]],
    summarise: Callable[[list[dict[str, Any]]], Mapping[str, Any]],
) -> dict[str, Any]:
    """Train the run of a locked output."""
    unfinished = UnfinishedRun(run.output, identity_of(distiller, run.kind, *run.depends_on), display)
    reports = unfinished.continue_run(distiller)
    if reports:
        display.line(f"continuing after evaluation {len(reports)} of {distiller.setup.reports}: {unfinished.folder}")
    try:
        with tracked(run.wandb, run.output.parent, run.kind, run.output.name, run.facts, display.line) as wandb_run:
            for report in reports:
                wandb_run.log(report)
            while not distiller.done:
                report = distiller.train_to_next_evaluation(
                    lambda step: display.stage("training", step, distiller.steps_total)
                )
                reports.append(report)
                wandb_run.log(report)
                _show(report, distiller.setup.task.metric, display)
                if "diverged" in report:
                    unfinished.remove()
                    raise FsdTuneError(f"Training diverged: {report['diverged']}.", hint="Lower --learning-rate.")
                if not distiller.done:
                    unfinished.save(distiller, reports)
            wandb_run.summary |= summarise(reports)
        display.close()
        record = write(reports)
    except BaseException as error:
        if unfinished.reports_kept:
            evaluation = f"{unfinished.reports_kept} of {distiller.setup.reports}"
            # The command line prints this note instead of "nothing was written".
            error.add_note(f"what was trained up to evaluation {evaluation} is kept in {unfinished.folder}")
        raise
    unfinished.remove()
    return record


def _show(report: Mapping[str, Any], metric: str, display: Display) -> None:
    # With fewer steps than evaluations, an evaluation before the first step has no loss.
    loss = f", loss {report['loss']:.4f}" if "loss" in report else ""
    display.line(f"  epoch {report['epoch']:.2f}: {metric} {report[metric]:.4f}{loss}")
