"""The process that talks to Weights & Biases: it reads calls as JSON lines, and writes one line if it cannot continue.

Only this process imports `wandb`, so that a failure of W&B's service cannot end the search, not even at exit. If the
input ends without a `close`, the process that writes it has died, and open runs stay unfinished.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsd_tune.tracking.tracker import SEAL, folders_of, safe_id


class OpenRuns:
    """The open runs of a group. Its methods are the calls that `tracker.Tracker` sends."""

    def __init__(self, folder: str, group: str, mode: str, project: str, entity: str | None, tags: list[str]) -> None:
        self._folder = Path(folder)
        self._group = group
        self._offline = mode == "offline"
        self._common_arguments: dict[str, Any] = {
            "mode": mode,
            "project": project,
            "entity": entity,
            "tags": tags,
            "group": group,
            "dir": folder,
        }
        self._runs: dict[str, Any] = {}
        self._last_report: dict[str, int] = {}
        wandb_folder = self._folder / "wandb"
        wandb_folder.mkdir(parents=True, exist_ok=True)
        if "WANDB_SWEEP_ID" not in os.environ:
            # W&B checks this variable, too, although the settings take its place.
            os.environ.pop("WANDB_PROJECT", None)
        # Keep W&B's files out of the home folder. Online runs need the user's configuration, which can name a server.
        for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", *(["WANDB_CONFIG_DIR"] if self._offline else [])):
            os.environ[variable] = str(wandb_folder / variable.split("_")[1].lower())

    def begin(self, name: str, kind: str, config: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Open a run; see `Tracker.begin`.

        Args:
            name: the name of the run within the group.
            kind: W&B's job type.
            config: the configuration, flat, one value per key.
            rows: earlier reports of the run.
        """
        if name in self._runs:
            return
        import wandb

        if self._offline:
            # Each report must exist once, so remove the files of this run that a killed process wrote.
            for path in folders_of(self._folder, self._group, name):
                shutil.rmtree(path)
        # The agent of a W&B sweep has set the id of its run already.
        run_id = None if "WANDB_SWEEP_ID" in os.environ else safe_id(f"{self._group}-{name}")
        run = wandb.init(
            **self._common_arguments, job_type=kind, name=name[:128], id=run_id, resume="allow", reinit="create_new",
            config=config, settings=_settings(wandb),
        )  # fmt: skip
        self._runs[name] = run
        # W&B's server knows the last report of an online run.
        self._last_report[name] = 0 if self._offline else int(run.summary.get("report") or 0)
        run.define_metric("*", step_metric="report")
        for row in rows:
            self.log(name, row)

    def log(self, name: str, row: dict[str, Any]) -> None:
        """Log a report unless it has been logged already.

        Args:
            name: the name of the run.
            row: metrics by name, and `report`.
        """
        if row["report"] > self._last_report[name]:
            # Do not pass step=, because W&B would then delay the newest row.
            self._runs[name].log(row)
            self._last_report[name] = row["report"]

    def draw(self, name: str, table: Mapping[str, Any], figures: Mapping[str, str]) -> None:
        """Log a table and figures.

        Args:
            name: the name of the run.
            table: a mapping {"columns", "data"}, logged as `leaderboard`.
            figures: Plotly figures as JSON, by name.
        """
        import plotly.io
        import wandb

        charts = {key: wandb.Plotly(plotly.io.from_json(text)) for key, text in figures.items()}
        self._runs[name].log({"leaderboard": wandb.Table(**table)} | charts)

    def end(self, name: str, summary: dict[str, Any], failed: bool) -> None:
        """Close a run and mark its folder as complete.

        Args:
            name: the name of the run.
            summary: figures for the run as a whole.
            failed: true if the run failed.
        """
        run = self._runs.pop(name)
        run.summary.update(summary)
        folder = Path(run.settings.sync_dir)
        run.finish(exit_code=int(failed))
        (folder / SEAL).write_text(json.dumps({"reports": self._last_report.pop(name)}), encoding="utf-8")


def _settings(wandb: Any) -> Any:
    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        symlink=False,
        # A killed process loses at most the rows of this many seconds; W&B's default is 15.
        x_transaction_log_flush_interval=1.0,
        max_end_of_run_history_metrics=0,
        max_end_of_run_summary_metrics=0,
    )


def main() -> None:
    """Carry out the calls on standard input in order, until one fails."""
    runs: OpenRuns | None = None
    try:
        for line in sys.stdin:
            call, arguments = json.loads(line)
            if call == "close":
                os._exit(0)
            if runs is None:
                runs = OpenRuns(*arguments)
            else:
                getattr(runs, call)(*arguments)
    except Exception as error:  # Any error of W&B is reported and ends only the tracking.
        print(str(error).splitlines()[0] if str(error) else type(error).__name__, flush=True)
    # Skip W&B's exit handlers, which can wait forever for a service that hangs.
    os._exit(1)


if __name__ == "__main__":
    main()
