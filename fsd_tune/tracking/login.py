"""Check, before anything starts, that Weights & Biases can be reached with the user's key."""

import os
import subprocess
import sys

from fsd_tune.settings.schema import Wandb

_SECONDS = 9.0
# It runs in a process of its own, which can be ended if the server does not answer and leaves no state in this one.
_LOG_IN = "import sys, wandb; sys.exit(0 if wandb.login(prompt=False, verify=True) else 3)"


def tracking_problems(settings: Wandb) -> list[str]:
    """Return the reasons why `wandb.mode: online` cannot work, as lines for the user, within 10 s.

    Args:
        settings: the settings of Weights & Biases. Modes other than online have no problems.

    Returns:
        At most one line; empty if tracking works.
    """
    if settings.mode != "online":
        return []
    environment = os.environ | {"WANDB_MODE": "online", "WANDB_SILENT": "false"}
    instead = "--wandb offline needs neither key nor server."
    try:
        # The key comes from the environment or the user's own netrc, never from a command line.
        done = subprocess.run(
            [sys.executable, "-c", _LOG_IN],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"wandb.mode: online, but the server has not answered within {_SECONDS:g} s. {instead}"]
    if done.returncode == 0:
        return []
    if done.returncode == 3:
        return [f"wandb.mode: online, but there is no key: `wandb login` or WANDB_API_KEY gives one; {instead}"]
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    reason = lines[-1] if lines else f"exit code {done.returncode}"
    key = os.environ.get("WANDB_API_KEY")
    return [f"wandb.mode: online, but W&B refuses: {reason.replace(key, '***') if key else reason} {instead}"]
