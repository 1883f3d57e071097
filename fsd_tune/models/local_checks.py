"""Models by their names: a folder, or a hub id; and whether the hub answers. Imports neither torch nor transformers.

The hub is asked once and with a time limit: its libraries would try six times, waiting longer each time.
"""

import re
from pathlib import Path

_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model")


def model_problems(path: str, place: str, tokenizer: bool = True) -> list[str]:
    """What is wrong with a model's folder, as far as its files show; nothing for a hub id.

    Args:
        path: a folder, or a hub id.
        place: what an error names, usually the flag.
        tokenizer: whether the folder must hold one.
    """
    folder = Path(path)
    if not path.strip():
        return [f"{place}: is empty, but must be a model's folder or a hub id."]
    if not folder.is_dir():
        # A relative path that begins with a folder that exists is no hub id.
        inside = len(folder.parts) > 1 and Path(folder.parts[0]).is_dir()
        if inside or folder.exists() or not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", path):
            return [f"{place}: {path} is no folder, but must be a model's folder or a hub id."]
        return []
    problems = []
    if not (folder / "config.json").is_file():
        problems.append(f"{place}: {path} holds no config.json, but must be a folder saved by save_pretrained.")
    if tokenizer and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        problems.append(f"{place}: {path} holds no tokenizer; save it there with tokenizer.save_pretrained({path!r}).")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and list(folder.glob("pytorch_model*.bin")):
        problems.append(
            f"{place}: {path} holds its weights as a pickle alone (pytorch_model.bin), which could run anything; load "
            "it where you trust it and save_pretrained it as safetensors."
        )
    elif not weights:
        problems.append(f"{place}: {path} holds no weights (model.safetensors).")
    return problems + [f"{place}: {file} is damaged: {what}." for file in weights if (what := _damage(file))]


def _damage(file: Path) -> str:
    """What is wrong with a safetensors file's header and length; empty when nothing is."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):
            return ""
    except (SafetensorError, OSError) as error:
        return str(error).splitlines()[0]
