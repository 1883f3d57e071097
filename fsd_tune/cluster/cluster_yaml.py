"""Whether a cluster's YAML for `ray up` is sound: by Ray's own validation, and by what that lets pass."""

import contextlib
import copy
import difflib
import importlib.util
import io
import logging
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from fsd_tune.errors import InputError

_AUTH = "RAY_AUTH_MODE"
_START = ("head_start_ray_commands", "worker_start_ray_commands")
_MAPPINGS = ("provider", "auth", "docker", "available_node_types", "file_mounts")
_SETUP = ("setup_commands", "head_setup_commands", "worker_setup_commands")
_LISTS = ("initialization_commands", *_SETUP, *_START)
# By the provider: what to import, what to install.
_CLOUDS = {"aws": ("boto3", "boto3"), "gcp": ("googleapiclient", "google-api-python-client")}
_PROVIDERS = {
    "aws": {"type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips", "security_group"},
    "gcp": {"type", "region", "availability_zone", "project_id", "cache_stopped_nodes", "use_internal_ips"},
    "local": {"type", "head_ip", "worker_ips", "coordinator_address", "external_head_ip"},
}


def read(path: Path) -> dict[str, Any]:
    """The YAML as a mapping.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        start = "cluster.yaml at the top level of this project is one to start from"
        raise InputError(f"{path}: no such file; {start}.") from None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise InputError(f"{path}: cannot be read: {line}{error.problem}.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]}.") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: must hold a mapping, as `ray up` reads it.")
    return found


def problems(path: Path) -> list[str]:
    """What is wrong with a cluster's YAML, a line each with its key; no cloud, network or key is needed."""
    try:
        config = read(path)
    except InputError as error:
        return list(error.problems)
    if "kind" in config and "apiVersion" in config:
        return [f"{path}: is a Kubernetes manifest, which `kubectl apply` takes, not `ray up`."]
    if not isinstance(config.get("provider"), dict) or "type" not in config["provider"]:
        return [f"{path}: provider: is missing; cluster.yaml at the top level of this project is one to start from."]
    # Everything else takes the shapes for granted, Ray's own validation too.
    found = _shapes(config) or [
        *_by_ray(config),
        *_name(config),
        *_counts(config),
        *_provider(config),
        *_starts(config),
        *_images(config),
    ]
    return [f"{path}: {problem}" for problem in found]


def _shapes(config: dict[str, Any]) -> list[str]:
    """Keys that hold something of another kind than `ray up` reads there."""
    kinds: dict[str, tuple[type, str]] = dict.fromkeys(_MAPPINGS, (dict, "a mapping"))
    kinds |= dict.fromkeys(_LISTS, (list, "a list"))
    held = {key: config[key] for key in kinds if config.get(key) is not None}
    held["provider.type"], kinds["provider.type"] = config["provider"]["type"], (str, "a name such as aws")
    types = config.get("available_node_types")
    for name, one in types.items() if isinstance(types, dict) else ():
        place = f"available_node_types.{name}"
        held[place], kinds[place] = one, (dict, "a mapping")
        if isinstance(one, dict) and one.get("docker") is not None:
            held[f"{place}.docker"], kinds[f"{place}.docker"] = one["docker"], (dict, "a mapping")
    return [
        f"{key}: found {str(value)[:40]}, but must be {kinds[key][1]}."
        for key, value in held.items()
        if not isinstance(value, kinds[key][0])
    ]


def _by_ray(config: dict[str, Any]) -> list[str]:
    """Ray's schema and its own checks; what they raise is of many types."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        with _silent():
            validate_config(prepare_config(copy.deepcopy(config)))
    except KeyError as error:
        return [f"{error.args[0]}: is missing."]
    except Exception as error:  # whatever it raises is said in one line
        told = getattr(error, "message", None) or next(iter(str(error).splitlines()), type(error).__name__)
        place = ".".join(str(part) for part in getattr(error, "absolute_path", ()))
        return [f"{place + ': ' if place else ''}{str(told).rstrip('.')}."]
    return []


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what Ray prints and logs of what it fills in, and of what it refuses."""
    before = logging.root.manager.disable
    logging.disable(sys.maxsize)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _name(config: dict[str, Any]) -> list[str]:
    name = config.get("cluster_name")
    if not isinstance(name, str) or not name or name == "default":
        return ["cluster_name: is missing; two clusters without a name of their own would be taken for one."]
    return []


def _counts(config: dict[str, Any]) -> list[str]:
    """Numbers of workers, over all and by type."""
    found = []
    types = config.get("available_node_types")
    groups = {"": config} | {
        f"available_node_types.{name}.": one for name, one in (types or {}).items() if isinstance(one, dict)
    }
    for place, group in groups.items():
        low, high = group.get("min_workers", 0), group.get("max_workers")
        for key, count in (("min_workers", low), ("max_workers", high)):
            if count is not None and (not isinstance(count, int) or count < 0):
                found.append(f"{place}{key}: found {count}, but must be a whole number from 0.")
        if isinstance(low, int) and isinstance(high, int) and low > high:
            found.append(f"{place}min_workers: found {low}, but max_workers is {high}.")
    return found


def _provider(config: dict[str, Any]) -> list[str]:
    """Keys that a provider does not know, which Ray would pass over in silence."""
    provider = config.get("provider")
    known = _PROVIDERS.get(provider.get("type", "")) if isinstance(provider, dict) else None
    if known is None:
        return []
    found = []
    for key in provider or ():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            found.append(f"provider.{key}: unknown key.{f' Did you mean `{near[0]}`?' if near else ''}")
    return found


def _starts(config: dict[str, Any]) -> list[str]:
    """The commands that start Ray: one auth mode for all, the token brought along, nothing open to the world."""
    found, modes = [], {}
    for key in _START:
        commands = " ; ".join(str(command) for command in config.get(key) or ())
        if not commands:
            continue
        mode = re.search(rf"{_AUTH}=(\w+)", commands)
        modes[key] = mode[1] if mode else "not set"
        host = re.search(r"--dashboard-host[= ](\S+)", commands)
        if host and host[1] not in ("127.0.0.1", "localhost"):
            found.append(f"{key}: --dashboard-host={host[1]} opens the dashboard to others; give 127.0.0.1.")
    if len(set(modes.values())) > 1:
        told = ", ".join(f"{key} {mode}" for key, mode in modes.items())
        found.append(f"{_AUTH}: differs ({told}); workers would be refused. Set the same in both.")
    mounts = config.get("file_mounts") or {}
    if "token" in modes.values() and not any(str(place).endswith(".ray/auth_token") for place in mounts):
        found.append('file_mounts: lacks "~/.ray/auth_token", which RAY_AUTH_MODE=token needs on every node.')
    return found


def _images(config: dict[str, Any]) -> list[str]:
    """The images' Ray and Python, and the Ray that commands install, beside those here."""
    here, python = metadata.version("ray"), f"py{sys.version_info.major}{sys.version_info.minor}"
    dockers = {"docker": config.get("docker")}
    types = config.get("available_node_types") or {}
    dockers |= {f"available_node_types.{name}.docker": one.get("docker") for name, one in types.items()}
    found = []
    for place, docker in dockers.items():
        for key in ("image", "head_image", "worker_image"):
            image = re.fullmatch(r"rayproject/ray(?:-ml)?:([\w.]+)((?:-[\w.]+)*)", str((docker or {}).get(key) or ""))
            if image is None:
                continue
            told = re.search(r"-(py\d+)", image[2])
            if re.sub(r"(\d+\.\d+\.\d+)\.\w+", r"\1", image[1]) != here:  # a commit may follow
                what = f"Ray {image[1]}, but Ray {here} is installed here"
            elif told and told[1] != python:
                what = f"{told[1]}, but {python} is what runs here"
            else:
                continue
            found.append(f"{place}.{key}: has {what}; give rayproject/ray:{here}-{python}-...")
    for key in _SETUP:
        for version in re.findall(r"\bray(?:\[[\w,]+\])?==([\w.]+)", " ".join(map(str, config.get(key) or ()))):
            if version != here:
                found.append(f"{key}: installs Ray {version}, but Ray {here} is installed here; give ray=={here}.")
    return found


def library(config: dict[str, Any]) -> list[str]:
    """The cloud's own library, which `ray up` and everything that talks to its cluster need."""
    kind = config["provider"]["type"]
    module, package = _CLOUDS.get(kind, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        return [f"provider {kind} needs {package}: pip install '{package}'."]
    return []


def lacking(path: Path) -> list[str]:
    """What `ray up` of a sound YAML would miss on this machine: library, ssh key, what file_mounts names."""
    config = read(path)
    key, found = (config.get("auth") or {}).get("ssh_private_key"), library(config)
    if key and not Path(str(key)).expanduser().is_file():
        found.append(f"auth.ssh_private_key: {key}: no such file; `ssh-keygen -t ed25519 -f {key}` makes one.")
    for there, here in (config.get("file_mounts") or {}).items():
        if not Path(str(here)).expanduser().exists():
            makes = "; `ray get-auth-token --generate` makes it" if str(here).endswith(".ray/auth_token") else ""
            found.append(f"file_mounts: {there}: {here}: no such file{makes}.")
    return [f"{path}: {problem}" for problem in found]
