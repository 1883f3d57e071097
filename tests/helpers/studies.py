"""Spaces for the study of a search, and a stand-in for the search that asks it."""

import optuna

KD = """
method: kd
space:
  alpha: {low: 0, high: 1}
  temperature: {low: 1, high: 10}
  learning_rate: {low: 1e-5, high: 1e-3, log: true}
  batch_size: {choice: [16, 32]}
search: {trials: 8, first: [{alpha: 0.25, batch_size: 16}]}
"""
METHODS = """
method: {choice: [ce, kd, fsd_g]}
space:
  alpha: {low: 0, high: 1}
  temperature: 5
  beta: {low: 0.1, high: 10, log: true}
  gamma_m: 0.5
  batch_size: {choice: [16, 32], when: {method: [ce]}}
search: {trials: 40}
"""
SHAPES = KD + (
    "student: {layers: {choice: [2, 4]}, start: {choice: [random, copy]}, hidden_size: {choice: [null, 192]}}\n"
)
FIXED = "method: kd\nspace: {alpha: 0.5, temperature: 5}\nsearch: {trials: 3}\n"
REPORTS = 4
GRID = """
method: {choice: [ce, kd, fsd_g]}
space:
  alpha: {low: 0.1, high: 0.35, step: 0.1}
  temperature: 5
  beta: {choice: [1, 30]}
  gamma_m: 0.5
  epochs: {low: 1, high: 2}
  batch_size: {choice: [16, 64], when: {method: [ce]}}
search: {sampler: grid, trials: 64, first: [{beta: 30, alpha: 0.3}, {method: ce, batch_size: 64, epochs: 2}]}
"""


def stored(path, name="search"):
    """Return the trials of a study on disk."""
    return optuna.load_study(study_name=name, storage=f"sqlite:///{path}").trials


def quality(config):
    """Return a smooth stand-in for what a trial scores."""
    return 0.8 - (config.get("alpha", 0.5) - 0.4) ** 2 - 0.05 * (config["batch_size"] == 32)


def play(record, trials, stop=lambda number: None, fail=lambda number: False):
    """Ask, report and tell as a search with one worker does; `stop` gives the report at which a trial is stopped."""
    configs = {}
    for _ in range(trials):
        number, config = record.ask()
        configs[number] = config
        last = stop(number) or REPORTS
        for report in range(1, last + 1):
            record.report(number, report, quality(config) - 0.3 / report)
        record.tell(number, "failed" if fail(number) else "stopped" if last < REPORTS else "finished")
    return configs
