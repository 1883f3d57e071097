"""Where a step's time goes, part by part: what explains a ratio that is missed."""

import cProfile
import pstats
from typing import Any

import torch

from benchmarks import setting as settings
from benchmarks.setting import Setting
from fsd_tune.losses import alignment_losses, global_parts, structures

METHODS = ("ce", "fsd_g", "fsd_ilg")
_STEPS = 12
# What a step calls, in its order, by the function's name in the profile.
_PARTS = {
    "batch and teacher targets": ("collate", "batch"),
    "student forward": ("_wrapped_call_impl",),
    "L_I and L_L: Gram matrices": (structures.compare_tokens.__name__, structures.compare_examples.__name__),
    "L_G: distances, cosines, Gram": (global_parts.__name__,),
    "CKA losses of all terms": (alignment_losses.__name__,),
    "backward": ("backward",),
    "clipping": ("clip_grad_norm_",),
    "optimiser": ("step",),
}


def shares(setting: Setting, precision: str) -> list[str]:
    """Lines: milliseconds of each part of a step for plain fine-tuning, fsd_g and fsd_ilg (CPU only)."""
    parts = {}
    for method in METHODS:
        _, _, bench = settings.artefacts(setting, method, precision)
        run = settings.distiller(bench)
        for _ in range(3):
            run.train_step()
        profile = cProfile.Profile()
        profile.enable()
        for _ in range(_STEPS):
            run.train_step()
        profile.disable()
        parts[method] = _of(pstats.Stats(profile))
    names = [*_PARTS, "rest", "whole step"]
    lines = [f"where a step's time goes, milliseconds, {setting.device} {precision}: {', '.join(METHODS)}"]
    for name in names:
        lines.append(f"  {name:30s}" + "".join(f"{parts[method][name]:9.1f}" for method in METHODS))
    return lines


def _of(stats: pstats.Stats) -> dict[str, float]:
    raw: dict[Any, Any] = stats.stats  # type: ignore[attr-defined]

    def spent(name: str) -> float:
        """Seconds in the outermost calls of that name."""
        found = [
            (cumulative, file) for (file, _, function), (_, _, _, cumulative, _) in raw.items() if function == name
        ]
        if name == "backward":
            found = [entry for entry in found if "autograd/__init__" in entry[1]]
        if name == "step":
            found = [entry for entry in found if "optim" in entry[1]]
        if name == "batch":
            found = [entry for entry in found if "sources" in entry[1]]
        return max((cumulative for cumulative, _ in found), default=0.0)

    times = {part: 1e3 * sum(map(spent, names)) / _STEPS for part, names in _PARTS.items()}
    whole = 1e3 * spent("train_on") / _STEPS
    return times | {"rest": whole - sum(times.values()), "whole step": whole}


def main() -> None:
    """Print the table in float32 and bf16."""
    from pathlib import Path

    setting = settings.make("cpu", Path("demo"))
    print(setting.describe(), f"(torch {torch.__version__})")
    for precision in ("float32", "bf16"):
        print("\n".join(shares(setting, precision)))


if __name__ == "__main__":
    main()
