"""A saved view of a project's workspace in Weights & Biases that sets compared searches side by side.

Needs `wandb-workspaces`, the optional extra `view`.
"""

from collections.abc import Sequence
from typing import Any

from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.report.compare import Comparison
from fsd_tune.settings.methods import TERMS
from fsd_tune.tracking.download import PREFIX


def place(sources: Sequence[str], compared: Comparison) -> tuple[str, str, list[str]]:
    """Where the compared searches are tracked: entity ("" for the user's own), project, and their groups.

    Args:
        sources: what was compared, as folders or `wandb:entity/project/group`.
        compared: the same, read.

    Raises:
        InputError: they are in different projects, or one was not tracked.
    """
    found, problems = [], []
    for source, results in zip(sources, compared.results, strict=True):
        if source.startswith(PREFIX):
            entity, project, group = source.removeprefix(PREFIX).split("/")
            found.append((entity, project, group))
            continue
        settings = results.settings.get("wandb")
        tracked = isinstance(settings, dict) and settings.get("mode", "off") != "off"
        if not tracked or not results.summary.group:
            problems.append(f"{source}: was not tracked; `--wandb offline` and `sync` put a search into W&B.")
            continue
        assert isinstance(settings, dict)
        found.append((settings.get("entity") or "", settings["project"], results.summary.group))
    if len({where[:2] for where in found}) > 1:
        names = ", ".join(sorted({f"{entity or '(default entity)'}/{project}" for entity, project, _ in found}))
        problems.append(f"--wandb-view: one project is needed, but the searches are in {names}.")
    if problems:
        raise InputError(problems)
    entity, project, _ = found[0]
    return entity, project, [group for _, _, group in found]


def of(sources: Sequence[str], compared: Comparison) -> Any:
    """The view of compared searches, not saved yet; see `place` and `build`."""
    hyperparameters = dict.fromkeys(name for results in compared.results for name in results.hyperparameters)
    return build(*place(sources, compared), compared.metric, list(hyperparameters))


def build(entity: str, project: str, groups: Sequence[str], metric: str, hyperparameters: Sequence[str]) -> Any:
    """The view: the groups' trials only, their columns, and charts of scores, curves and hyperparameters.

    Returns:
        A `wandb_workspaces.workspaces.Workspace`, not saved yet.

    Raises:
        InputError: `wandb-workspaces` is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as charts
        import wandb_workspaces.workspaces as workspaces
    except ImportError:
        raise InputError("--wandb-view: needs wandb-workspaces: pip install 'fsd_tune[view]'.") from None
    score, group = charts.SummaryMetric("score"), charts.Config("search")
    columns = [charts.ParallelCoordinatesPlotColumn(charts.Config(f"hp/{name}")) for name in hyperparameters]
    columns.append(charts.ParallelCoordinatesPlotColumn(score))
    compared = workspaces.Section(
        name="Searches compared",
        is_open=True,
        panels=[
            charts.BarPlot(title="best score", metrics=[score], groupby=group, groupby_aggfunc="max"),
            charts.BarPlot(title="median score", metrics=[score], groupby=group, groupby_aggfunc="median"),
            charts.LinePlot(title="learning curves", x="report", y=[metric], groupby=group, groupby_aggfunc="max"),
            charts.ParallelCoordinatesPlot(columns=columns, title="hyperparameters"),
            charts.ParameterImportancePlot(with_respect_to="score"),
        ],
    )
    losses = workspaces.Section(
        name="Loss terms",
        is_open=False,
        panels=[
            charts.LinePlot(title=term, x="report", y=[f"loss/{term}"], groupby=group, groupby_aggfunc="mean")
            for term in TERMS
        ],
    )
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"fsd_tune: {' · '.join(groups)}",
        sections=[compared, losses],
        runset_settings=workspaces.RunsetSettings(
            filters=[workspaces.Metric("Group").isin(list(groups)), workspaces.Metric("JobType") == "trial"],
            order=[workspaces.Ordering(workspaces.Summary("score"), ascending=False)],
            pinned_columns=["summary:score", "summary:state", *(f"config:hp/{name}.value" for name in hyperparameters)],
        ),
    )


def save(view: Any) -> str:
    """Save a built view; returns its address.

    Raises:
        FsdTuneError: W&B refuses.
    """
    try:
        view.save()
    except Exception as error:  # whatever W&B raises is said in one line
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise FsdTuneError(f"--wandb-view: W&B has not taken the view: {why}") from error
    return str(view.url)
