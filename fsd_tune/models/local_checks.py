"""Check the files of a model's folder. Imports neither torch nor transformers, so that commands fail fast."""

import re
from pathlib import Path

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
    if not (folder / "config.json").is_file():
        problems.append(f"{flag}: {path} holds no config.json, but must be a folder saved by save_pretrained.")
    if tokenizer and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        problems.append(f"{flag}: {path} holds no tokenizer; save it there with tokenizer.save_pretrained({path!r}).")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and list(folder.glob("pytorch_model*.bin")):
        problems.append(
            f"{flag}: {path} holds its weights as a pickle alone (pytorch_model.bin), which could run anything; load "
            "it where you trust it and save_pretrained it as safetensors."
        )
    elif not weights:
        problems.append(f"{flag}: {path} holds no weights (model.safetensors).")
    return problems + [f"{flag}: {file} is damaged: {damage}." for file in weights if (damage := _damage(file))]


def _damage(file: Path) -> str:
    """Return what is wrong with a safetensors file's header and length; empty if nothing is."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):
            return ""
    except (SafetensorError, OSError) as error:
        return str(error).splitlines()[0]
