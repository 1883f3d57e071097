"""Whether Weights & Biases can be reached with the user's key: asked before anything starts."""

import os
import subprocess
import sys

from fsd_tune.settings.schema import Wandb

_SECONDS = 9.0
# In a process of its own: it can be ended when the server does not answer, and it leaves no state behind here.
_LOG_IN = "import sys, wandb; sys.exit(0 if wandb.login(prompt=False, verify=True) else 3)"


def tracking_problems(settings: Wandb) -> list[str]:
    """What keeps `wandb.mode: online` from working, as lines for people; said within 10 s."""
    if settings.mode != "online":
        return []
    environment = os.environ | {"WANDB_MODE": "online", "WANDB_SILENT": "false"}
    instead = "--wandb offline needs neither key nor server."
    try:
        # The key goes by the environment or the user's own netrc, never by the command line.
        asked = subprocess.run(
            [sys.executable, "-c", _LOG_IN],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"wandb.mode: online, but the server has not answered within {_SECONDS:g} s. {instead}"]
    if asked.returncode == 0:
        return []
    if asked.returncode == 3:
        return [f"wandb.mode: online, but there is no key: `wandb login` or WANDB_API_KEY gives one; {instead}"]
    lines = [line.strip() for line in asked.stderr.splitlines() if line.strip()]
    reason = lines[-1] if lines else f"exit code {asked.returncode}"
    key = os.environ.get("WANDB_API_KEY")
    return [f"wandb.mode: online, but W&B refuses: {reason.replace(key, '***') if key else reason} {instead}"]
