"""The process that talks to Weights & Biases: reads calls as JSON lines, and says by a line why it cannot go on.

It is the only one that imports `wandb`: whatever happens to W&B's own service, at the end of the process too, happens
here. When its input ends without a `close`, the process that wrote it has died; open runs then stay unfinished.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsd_tune.tracking.tracker import SEAL, folders_of, safe_id


class Runs:
    """Open runs of a group; its methods are the calls that `tracking.Tracker` sends."""

    def __init__(self, folder: str, group: str, mode: str, project: str, entity: str | None, tags: list[str]) -> None:
        self._folder, self._group, self._offline = Path(folder), group, mode == "offline"
        self._all: dict[str, Any] = {
            "mode": mode,
            "project": project,
            "entity": entity,
            "tags": tags,
            "group": group,
            "dir": folder,
        }
        self._runs: dict[str, Any] = {}
        self._last: dict[str, int] = {}
        own = self._folder / "wandb"
        own.mkdir(parents=True, exist_ok=True)
        # Nothing in the home folder; but a user's own configuration names the server, where runs go there.
        for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", *(["WANDB_CONFIG_DIR"] if self._offline else [])):
            os.environ[variable] = str(own / variable.split("_")[1].lower())

    def begin(self, name: str, kind: str, config: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Open a run; nothing if it is open."""
        if name in self._runs:
            return
        import wandb

        if self._offline:
            # Each report is to be there once: what a killed process has written of this run is written anew.
            for path in folders_of(self._folder, self._group, name):
                shutil.rmtree(path)
        # An agent of a W&B sweep has named its run already.
        own = None if "WANDB_SWEEP_ID" in os.environ else safe_id(f"{self._group}-{name}")
        run = wandb.init(
            **self._all, job_type=kind, name=name, id=own, resume="allow", reinit="create_new", config=config,
            settings=_settings(wandb),
        )  # fmt: skip
        self._runs[name] = run
        # An online run knows what of it has arrived; a new one knows nothing.
        self._last[name] = 0 if self._offline else int(run.summary.get("report") or 0)
        run.define_metric("*", step_metric="report")
        for row in rows:
            self.log(name, row)

    def log(self, name: str, row: dict[str, Any]) -> None:
        """A report that has not been logged yet."""
        if row["report"] > self._last[name]:
            # Never with step=: W&B would hold the newest row back.
            self._runs[name].log(row)
            self._last[name] = row["report"]

    def draw(self, name: str, table: Mapping[str, Any], figures: Mapping[str, str]) -> None:
        """A table ({"columns", "data"}) as `leaderboard`, and Plotly figures as JSON."""
        import plotly.io
        import wandb

        made = {key: wandb.Plotly(plotly.io.from_json(text)) for key, text in figures.items()}
        self._runs[name].log({"leaderboard": wandb.Table(**table)} | made)

    def end(self, name: str, summary: dict[str, Any], failed: bool) -> None:
        """Close a run."""
        run = self._runs.pop(name)
        run.summary.update(summary)
        folder = Path(run.settings.sync_dir)
        run.finish(exit_code=int(failed))
        (folder / SEAL).write_text(json.dumps({"reports": self._last.pop(name)}), encoding="utf-8")


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
        # A killed process loses at most this much, in seconds; W&B's own value is 15.
        x_transaction_log_flush_interval=1.0,
        max_end_of_run_history_metrics=0,
        max_end_of_run_summary_metrics=0,
    )


def main() -> None:
    """Carry out the calls of standard input in order; the first that fails is the last."""
    runs: Runs | None = None
    try:
        for line in sys.stdin:
            call, arguments = json.loads(line)
            if call == "close":
                os._exit(0)
            if runs is None:
                runs = Runs(*arguments)
            else:
                getattr(runs, call)(*arguments)
    except Exception as error:  # whatever W&B raises is said, and ends the tracking alone
        print(str(error).splitlines()[0] if str(error) else type(error).__name__, flush=True)
    # Without W&B's own farewell, which may wait for ever for a service that hangs.
    os._exit(1)


if __name__ == "__main__":
    main()
