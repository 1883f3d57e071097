"""The lines that `fsd-tune confirm` prints at its end, from `confirm/summary.json` alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsd_tune.progress import short

Confirmation = Mapping[str, Any]

_INTERVALS = (
    "Each interval covers what other seeds and other dev examples may change together (variances added, Satterthwaite)."
)
_SEQUENTIAL = (
    "Each interval covers what other seeds and other dev examples may change together, whenever one stops adding "
    "seeds; all of them hold at once."
)
_STILL_OPTIMISTIC = (
    "All configurations were chosen on these dev examples, which fresh seeds do not undo: expect less on new examples."
)


def confirmation_lines(made: Confirmation, folder: Path) -> list[str]:
    """Return the lines that the end of a confirmation prints.

    Args:
        made: the content of `confirm/summary.json`.
        folder: the search's folder.
    """
    fresh = made["fresh_seeds"]
    selection = made["selection_seeds"]
    metric = made["metric"]
    out = [
        f"{folder}: winner {made['winner']['label']}, confirmed on {len(fresh)} fresh seeds ({_span(fresh)})",
        f"                  {short(made['winner']['config'])}",
        f"  selection       {metric}, mean ± standard deviation on {len(selection)} seeds ({_span(selection)})",
    ]
    width = max(len(configuration["label"]) for configuration in made["configurations"]) + 2
    for configuration in made["configurations"]:
        if "selection" in configuration:
            mark = "  <- winner" if configuration["role"] == "winner" else ""
            out.append(
                f"    {configuration['label']:<{width}s}{figure(configuration['selection'])}  "
                f"(search {configuration['search_score']:.4f}){mark}"
            )
    out.append(f"  fresh seeds     {metric}, seeds that chose nothing")
    for configuration in made["configurations"]:
        if "fresh" in configuration:
            remark = f"  {configuration['remark']}" if configuration["remark"] else ""
            out.append(f"    {configuration['label']:<{width}s}{figure(configuration['fresh'])}{remark}")
    for difference in made["differences"]:
        out += [
            f"  winner minus {difference['baseline']}: {difference['verdict']}",
            f"    {interval(difference['interval'])}{significance(difference)}",
        ]
    if made["differences"]:
        out.append(f"  {_SEQUENTIAL if made['differences'][0]['sequential'] else _INTERVALS}")
    out.append(f"  {_STILL_OPTIMISTIC}")
    optimism, runs = made["optimism"], made["runs"]
    overestimate = (
        "" if optimism["fresh"] is None else f"; the search promised {optimism['search'] - optimism['fresh']:+.4f}"
    )
    out += [
        f"  optimism        {_score(optimism['search'])} in the search, {_score(optimism['selection'])} on selection "
        f"seeds, {_score(optimism['fresh'])} on fresh seeds{overestimate}",
        f"  teacher passes  {made['teacher_passes']} paid; {len(runs)} runs, {made['runs_trained']} trained now",
    ]
    for name, what in (("confirm.csv", "table"), ("summary.json", "all figures"), ("best", "the winner's student")):
        if (folder / "confirm" / name).exists():
            out.append(f"  {what + ' ':.<24s} {folder / 'confirm' / name}")
    return out


def one_line(made: Confirmation) -> str:
    """Return a confirmation as one line of the search's summary.

    Args:
        made: the content of `confirm/summary.json`.
    """
    winner, fresh = made["winner"], made["winner"]["fresh"]
    verdicts = [f"{difference['verdict']} against {difference['baseline']}" for difference in made["differences"]]
    return f"{winner['label']}: {made['metric']} {figure(fresh)} on {len(made['fresh_seeds'])} fresh seeds" + "".join(
        f"; {verdict}" for verdict in verdicts
    )


def figure(figures: Mapping[str, Any]) -> str:
    """Return mean and standard deviation as `0.7942 ± 0.0081`, with the number of diverged runs if there are any.

    Args:
        figures: a configuration's figures on one set of seeds, from `confirm/summary.json`.
    """
    if figures["mean"] is None:
        return "all runs diverged"
    spread = "" if figures["deviation"] is None else f" ± {figures['deviation']:.4f}"
    failed = f", {len(figures['failed'])} diverged" if figures["failed"] else ""
    return f"{figures['mean']:.4f}{spread}{failed}"


def interval(found: Mapping[str, Any] | None) -> str:
    """Return a difference with its interval, as `+0.0125, 95% interval -0.0020 to +0.0270`.

    Args:
        found: the estimate and its interval, from `confirm/summary.json`; None if too few runs trained.
    """
    if found is None:
        return "too few runs that trained"
    if found["low"] is None:
        return f"{found['estimate']:+.4f}, too few seeds for an interval"
    return f"{found['estimate']:+.4f}, 95% interval {found['low']:+.4f} to {found['high']:+.4f}"


def significance(difference: Mapping[str, Any]) -> str:
    """Return number of seeds and p-value of a difference, as ` (5 seeds, p 0.013)`.

    Args:
        difference: an entry of `differences` in `confirm/summary.json`.
    """
    p = difference["adjusted_p"]
    return f" ({difference['pairs']} seeds{'' if p is None else f', p {p:.3f} after Holm'})"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _span(seeds: list[int]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]}–{seeds[-1]}"
