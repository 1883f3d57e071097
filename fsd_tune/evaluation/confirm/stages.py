"""The two stages of a confirmation: the selection seeds, then the fresh seeds, with what their number can show."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fsd_tune.errors import FsdTuneError, InputError
from fsd_tune.evaluation.confirm import power
from fsd_tune.evaluation.confirm.counts import MOST_SEEDS
from fsd_tune.evaluation.confirm.figures import level_of_each, paired_differences, run_requests, scores_of
from fsd_tune.evaluation.confirm.inputs import Configuration, ConfirmationPlan
from fsd_tune.evaluation.confirm.power import POINT, Spread
from fsd_tune.evaluation.confirm.run_store import FinishedRun
from fsd_tune.evaluation.confirm.runs import ConfirmationRuns
from fsd_tune.evaluation.confirm.sequential import FIRST_SEEDS, Decision, decide
from fsd_tune.progress import Display, short
from fsd_tune.report.intervals import mean_and_deviation

FinishedRuns = Mapping[str, FinishedRun]


def expected_spread(plan: ConfirmationPlan, records: Sequence[Mapping[str, Any]]) -> Spread | None:
    """Return what is known of the spread of scores before anything is trained.

    Args:
        plan: of the confirmation.
        records: of runs of earlier confirmations.
    """
    found = power.spread_of_runs(records, "runs of earlier confirmations")
    if found is not None:
        return found
    return power.spread_of_trials([c.score for c in plan.searched.configurations() if c.score is not None])


def announce(plan: ConfirmationPlan, spread: Spread | None, display: Display) -> None:
    """Say what the fresh seeds can show, before anything is trained.

    Args:
        plan: of the confirmation.
        spread: of the scores, if it is known.
        display: shows the line.

    Raises:
        InputError: the fresh seeds are too few for `--detect`.
    """
    counts = plan.counts
    if spread is None:
        return
    if counts.known is None:
        assert counts.detect is not None
        needed = power.seeds_needed(spread, counts.detect * POINT, MOST_SEEDS)
        number = f"about {needed} fresh seeds" if needed else f"more than {MOST_SEEDS} fresh seeds"
        display.line(f"a difference of {counts.detect:g} points needs {number} (from {spread.source})")
        return
    if counts.detect is not None:
        shortage = power.shortage(spread, counts.known, counts.detect * POINT, MOST_SEEDS)
        if shortage:
            raise InputError(f"--detect: {shortage}.")
    display.line(power.power_line(spread, counts.known))


def choose_winner(plan: ConfirmationPlan, finished_runs: FinishedRuns, display: Display) -> Configuration:
    """Return the candidate with the best mean on the selection seeds; the search decides between equal means.

    Args:
        plan: of the confirmation.
        finished_runs: the runs by name.
        display: shows the winner.

    Raises:
        FsdTuneError: every candidate has a run that diverged.
    """
    best = _best(plan, plan.candidates, finished_runs, display)
    if best is None:
        raise FsdTuneError(
            "No configuration has trained on all selection seeds: each has a run that diverged.",
            hint="Let more configurations compete with --top, or search again with lower learning rates.",
        )
    mean, winner = best
    display.line(f"winner: {winner.label}, mean {mean:.4f} on the selection seeds; {short(winner.config)}")
    return winner


def choose_tuned(plan: ConfirmationPlan, finished_runs: FinishedRuns, display: Display) -> Configuration | None:
    """Return the kd configuration of the baseline's search that is best on the selection seeds; None without a search.

    Args:
        plan: of the confirmation.
        finished_runs: the runs by name.
        display: shows the configurations that cannot win.

    Raises:
        FsdTuneError: each of them has a run that diverged.
    """
    if not plan.tuned:
        return None
    best = _best(plan, plan.tuned, finished_runs, display)
    if best is None:
        raise FsdTuneError(
            "--baseline: no kd configuration has trained on all selection seeds: each has a run that diverged.",
            hint="Leave --baseline out, or let more configurations compete with --top.",
        )
    _, chosen = best
    among = f"the best of {len(plan.tuned)} on the selection seeds" if len(plan.tuned) > 1 else "the only one"
    return replace(chosen, label="kd (tuned)", remark=f"{chosen.label.removeprefix('kd, ')}, {among}")


def _best(
    plan: ConfirmationPlan, candidates: Sequence[Configuration], finished_runs: FinishedRuns, display: Display
) -> tuple[float, Configuration] | None:
    means = []
    for candidate in candidates:
        scores = scores_of(plan, candidate, plan.selection_seeds, finished_runs)
        if len(scores) < len(plan.selection_seeds):
            failed = len(plan.selection_seeds) - len(scores)
            display.line(f"  {candidate.label} cannot win: {failed} of its {len(plan.selection_seeds)} runs diverged")
        else:
            means.append((mean_and_deviation(list(scores.values()))[0], candidate))
    return max(means, key=lambda item: item[0]) if means else None


def measured_spread(plan: ConfirmationPlan, finished_runs: FinishedRuns) -> Spread | None:
    """Return the spread of scores over the selection seeds, and over dev examples between two of the candidates.

    Args:
        plan: of the confirmation.
        finished_runs: the runs on the selection seeds, by name.
    """
    examples = 0.0
    trained = [c for c in plan.candidates if scores_of(plan, c, plan.selection_seeds, finished_runs)]
    if len(trained) > 1:
        _, examples = paired_differences(plan, trained[0], trained[1], plan.selection_seeds, finished_runs)
    return power.spread_of_runs((run.record for run in finished_runs.values()), "the selection seeds", examples)


def train_fresh(
    plan: ConfirmationPlan,
    winner: Configuration,
    baselines: Sequence[Configuration],
    spread: Spread | None,
    runs: ConfirmationRuns,
    display: Display,
) -> tuple[dict[str, FinishedRun], tuple[int, ...]]:
    """Train the winner and the baselines on fresh seeds.

    Args:
        plan: of the confirmation.
        winner: the winner on the selection seeds.
        baselines: to compare it with.
        spread: of the scores on the selection seeds, if it is known.
        runs: trains or reads the runs.
        display: shows decisions.

    Returns:
        The runs by name, and the fresh seeds of the winner.

    Raises:
        FsdTuneError: no number of seeds can show the wanted difference.
    """
    most = plan.counts.known or _needed_seeds(plan, spread)
    if spread is not None:
        display.line(power.power_line(spread, most))
    seeds = plan.fresh_seeds(most)
    if plan.counts.most is None:
        requests = run_requests(plan, [winner, *baselines], seeds, student_of=winner)
        return runs.finish("fresh seeds", requests), seeds
    finished_runs: dict[str, FinishedRun] = {}
    open_baselines, count = list(baselines), min(FIRST_SEEDS, most)
    while True:
        requests = run_requests(plan, [winner, *open_baselines], seeds[:count], student_of=winner)
        new = [request for request in requests if request.name not in finished_runs]
        finished_runs |= runs.finish(f"fresh seeds, {count} of at most {most}", new)
        still_open = []
        for baseline in open_baselines:
            values, error = paired_differences(plan, winner, baseline, seeds[:count], finished_runs)
            diverged = count - len(values)
            decision = decide(values, error, most - diverged, level_of_each(len(baselines)))
            if decision is Decision.OPEN:
                still_open.append(baseline)
            else:
                display.line(f"  winner minus {baseline.label}: {decision.value} after {count} seeds")
        open_baselines = still_open
        if not open_baselines:
            return finished_runs, seeds[:count]
        count += 1


def _needed_seeds(plan: ConfirmationPlan, spread: Spread | None) -> int:
    """Return the number of fresh seeds that `--detect` needs."""
    detect = plan.counts.detect
    assert detect is not None
    if spread is None:
        raise FsdTuneError(
            "--detect: the selection seeds are too few to know the spread of scores.",
            hint="Give at least 4 selection seeds with --seeds, or a number of --fresh-seeds.",
        )
    needed = power.seeds_needed(spread, detect * POINT, MOST_SEEDS)
    if needed is None:
        raise FsdTuneError(
            f"--detect: {power.shortage(spread, MOST_SEEDS, detect * POINT, MOST_SEEDS)}.",
            hint="Give a number of --fresh-seeds; the runs on the selection seeds are kept.",
        )
    return max(2, needed)
