"""Check the files of a model's folder. Imports neither torch nor transformers, so that commands fail fast."""

import json
import re
from pathlib import Path

# Wrappers that leave their name in those of the weights: DistributedDataParallel, torch.compile, FSDP, checkpointing.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
WEIGHTS = "model.safetensors"
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model")


def model_problems(path: str, flag: str, tokenizer: bool = True) -> list[str]:
    """Return the problems of a model's folder that its files show; empty for a hub id.

    Args:
        path: a folder, or a hub id.
        flag: the flag or setting that errors name.
        tokenizer: whether the folder must hold one.
    """
    folder = Path(path)
    if not path.strip():
        return [f"{flag}: is empty, but must be a model's folder or a hub id."]
    if not folder.is_dir():
        # A relative path that begins with a folder that exists is no hub id.
        inside = len(folder.parts) > 1 and Path(folder.parts[0]).is_dir()
        if inside or folder.exists() or not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", path):
            return [f"{flag}: {path} is no folder, but must be a model's folder or a hub id."]
        return []
    problems = []
    adapter = (folder / "adapter_config.json").is_file()
    if adapter:
        problems.append(
            f"{flag}: {path} holds a PEFT adapter, but must hold a whole model; in Python: `m = peft."
            f"AutoPeftModelForSequenceClassification.from_pretrained({path!r})` and "
            "`m.merge_and_unload().save_pretrained('merged')`, then save its tokenizer there."
        )
    elif not (folder / "config.json").is_file():
        problems.append(f"{flag}: {path} holds no config.json, but must be a folder saved by save_pretrained.")
    if tokenizer and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        problems.append(f"{flag}: {path} holds no tokenizer; save it there with tokenizer.save_pretrained({path!r}).")
    return problems if adapter else problems + _weight_problems(folder, path, flag)


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a model's weights, as transformers chooses them; empty if there are none.

    Args:
        folder: the model's folder.

    Raises:
        ValueError: the index of the files is damaged, or names files outside the folder.
    """
    whole, index = folder / WEIGHTS, folder / f"{WEIGHTS}.index.json"
    if whole.is_file() or not index.is_file():
        return [whole] if whole.is_file() else []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is damaged: it has no weight_map from names to files") from error
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ValueError(f"{index} is damaged: its weight_map must name files in {folder}")
    return [folder / name for name in names]


def _weight_problems(folder: Path, path: str, flag: str) -> list[str]:
    try:
        files = weight_files(folder)
    except ValueError as error:
        return [f"{flag}: {error}."]
    if not files:
        others = sorted(file.name for file in folder.glob("*.safetensors"))
        if others:
            return [f"{flag}: {path} holds no weights under the name {WEIGHTS}, but {others[0]}; rename or index it."]
        if list(folder.glob("pytorch_model*.bin")):
            return [
                f"{flag}: {path} holds its weights as a pickle alone (pytorch_model.bin), which could run anything; "
                "load it where you trust it and save_pretrained it as safetensors."
            ]
        return [f"{flag}: {path} holds no weights ({WEIGHTS})."]
    lacking = [file.name for file in files if not file.is_file()]
    if lacking:
        return [f"{flag}: {path} lacks {len(lacking)} of the files that {WEIGHTS}.index.json names: {lacking[0]}."]
    damaged = [f"{flag}: {file} is damaged: {damage}." for file in files if (damage := _damage(file))]
    return damaged or _wrapped(files, path, flag)


def _wrapped(files: list[Path], path: str, flag: str) -> list[str]:
    """Return the problem of weights that were saved from a wrapped model; empty if they were not."""
    from safetensors import safe_open

    for file in files:
        with safe_open(file, framework="np") as weights:
            names = list(weights.keys())
        if any(name.startswith("base_model.model.") or ".lora_" in name for name in names):
            return [
                f"{flag}: {path} holds the weights of a PEFT model ({names[0]}); where it was trained, in Python: "
                f"`m = model.merge_and_unload()` and `m.save_pretrained({path!r})`."
            ]
        if wrappers := [part for part in _WRAPPERS if any(part in name.split(".") for name in names)]:
            stripped = "".join(f".replace('{part}.', '')" for part in wrappers)
            return [
                f"{flag}: {path} was saved from a wrapped model (DistributedDataParallel, torch.compile or the like): "
                f"its weights' names contain {wrappers[0]!r}; in Python: `from safetensors.torch import load_file, "
                f"save_file` and `f = {str(file)!r}; save_file({{k{stripped}: v for k, v in load_file(f).items()}}, f, "
                "{'format': 'pt'})`."
            ]
    return []


def _damage(file: Path) -> str:
    """Return what is wrong with a safetensors file's header and length; empty if nothing is."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):
            return ""
    except (SafetensorError, OSError) as error:
        return str(error).splitlines()[0]
