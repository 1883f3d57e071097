"""Check before a search starts that Weights & Biases can be reached with the user's key."""

import os
import subprocess

from fsd_tune.python_command import python
from fsd_tune.settings.wandb_section import Wandb

_TIMEOUT_SECONDS = 9.0
# The login runs in a separate process, because that can be ended if the server does not answer, and leaves no state in
# this one.
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
    alternative = "--wandb offline needs neither key nor server."
    try:
        # The key comes from the environment or the user's netrc, never from a command line.
        process = subprocess.run(
            python("-c", _LOG_IN),
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"wandb.mode: online, but the server has not answered within {_TIMEOUT_SECONDS:g} s. {alternative}"]
    if process.returncode == 0:
        return []
    if process.returncode == 3:
        return [f"wandb.mode: online, but there is no key. Run `wandb login` or set WANDB_API_KEY; {alternative}"]
    lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
    reason = lines[-1] if lines else f"exit code {process.returncode}"
    key = os.environ.get("WANDB_API_KEY")
    return [f"wandb.mode: online, but W&B refuses: {reason.replace(key, '***') if key else reason} {alternative}"]
