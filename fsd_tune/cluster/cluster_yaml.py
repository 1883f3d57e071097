"""Check a cluster's YAML before `ray up`, with Ray's own schema and validation and for mistakes that these miss.

The additional checks find workers that cannot join and cost money, and a dashboard that others can reach.
"""

import contextlib
import copy
import importlib.util
import io
import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from fsd_tune.errors import InputError, nearest
from fsd_tune.settings import yaml_file
from fsd_tune.settings.problems import Problems
from fsd_tune.storage.uri import local_path

# A problem: the path of its key, and the text that follows the key.
Problem = tuple[Sequence[str | int], str]

_AUTH = "RAY_AUTH_MODE"
# Seconds between the signal that stops a job and the one that kills it; an orderly end of a search takes about 6.
_STOP, _STOP_SECONDS = "RAY_JOB_STOP_WAIT_TIME_S", 20
_START_COMMANDS = ("head_start_ray_commands", "worker_start_ray_commands")
# By provider: the module that Ray imports, and the package that contains the module.
_CLOUD_LIBRARIES = {"aws": ("boto3", "boto3"), "gcp": ("googleapiclient", "google-api-python-client")}
_JSON_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


def read_cluster_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a cluster's YAML.

    Args:
        path: the YAML file for `ray up`.

    Raises:
        InputError: the file cannot be read, or is not a mapping.
    """
    if not path.exists():
        start = "you can start from cluster.yaml at the top level of this project"
        raise InputError(f"{path}: no such file; {start}.")
    document = yaml_file.read_yaml(path, "cluster_name")
    Problems(str(path), document.lines, document.issues, {}).raise_any()
    try:
        # `ray up` reads the values of YAML 1.1.
        config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]}.") from None
    return config


def problems(path: Path) -> list[str]:
    """Return the problems of a cluster's YAML as lines `file:line: key: problem`.

    The check needs no cloud, network or key.

    Args:
        path: the YAML file for `ray up`.

    Returns:
        A line for each problem; empty if the YAML is valid.
    """
    try:
        config = read_cluster_yaml(path)
    except InputError as error:
        return list(error.problems)
    if "kind" in config and "apiVersion" in config:
        return [f"{path}: is a Kubernetes manifest, which `kubectl apply` takes, not `ray up`."]
    if not isinstance(config.get("provider"), dict) or "type" not in config["provider"]:
        return [f"{path}: provider: is missing; you can start from cluster.yaml at the top level of this project."]
    document = yaml.compose(path.read_text(encoding="utf-8"))
    # All other checks, including Ray's own, rely on the types.
    key_problems = _type_problems(config) or [
        *_ray_problems(config),
        *_name_problems(config),
        *_count_problems(config),
        *_start_problems(config),
    ]
    return [_sentence(path, document, keys, text) for keys, text in key_problems]


def _sentence(path: Path, document: yaml.Node | None, keys: Sequence[str | int], text: str) -> str:
    """Return a problem as a line with the file, the line number of the deepest existing key, and the key."""
    line, node = 0, document
    for key in keys:
        entries: list[tuple[str | int, yaml.Node, yaml.Node]] = []
        if isinstance(node, yaml.MappingNode):
            entries = [(name.value, name, value) for name, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            entries = [(index, value, value) for index, value in enumerate(node.value)]
        start, node = next(((start, value) for name, start, value in entries if name == key), (None, node))
        if start is None:
            break
        line = start.start_mark.line + 1
    location = f"{path}:{line}" if line else str(path)
    key_path = f"{'.'.join(map(str, keys))}: " if keys else ""
    return f"{location}: {key_path}{text if text.endswith(('.', '?')) else f'{text}.'}"


def _schema_errors(config: dict[str, Any]) -> list[Any]:
    """Return the `jsonschema.ValidationError`s of Ray's schema."""
    import ray.autoscaler

    try:
        from jsonschema import Draft7Validator
    except ImportError:  # Ray's own validation needs it, too, and reports the error.
        return []
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8"))
    return list(Draft7Validator(schema).iter_errors(config))


def _type_problems(config: dict[str, Any]) -> list[Problem]:
    """Return values whose type differs from Ray's schema; null is valid, because Ray replaces it by the default."""
    return [
        (
            list(error.absolute_path),
            f"found {str(error.instance)[:40]}, but must be {_type_words(error.validator_value)}",
        )
        for error in _schema_errors(config)
        if error.validator == "type" and error.instance is not None
    ]


def _type_words(types: str | list[str]) -> str:
    """Return the types that Ray's schema accepts, in words."""
    names = [types] if isinstance(types, str) else types
    return " or ".join(_JSON_TYPES[name] for name in names if name in _JSON_TYPES)


def _ray_problems(config: dict[str, Any]) -> list[Problem]:
    """Return the problems that Ray's schema and validation find in the YAML with Ray's defaults."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        with _silent():
            prepared = prepare_config(copy.deepcopy(config))
            errors = _schema_errors(prepared)
            if not errors:
                validate_config(prepared)
    except KeyError as error:
        return [([str(error.args[0])], "is missing")]
    except Exception as error:  # Ray raises errors of many types.
        return [((), next(iter(str(error).splitlines()), type(error).__name__))]
    schema_problems: list[Problem] = []
    for violation in errors:
        keys = list(violation.absolute_path)
        if violation.validator == "additionalProperties":
            known = violation.schema["properties"]
            unknown = sorted(str(key) for key in set(violation.instance) - set(known))
            schema_problems += [([*keys, key], f"unknown key.{nearest(key, known)}") for key in unknown]
        else:
            schema_problems.append((keys, violation.message))
    return schema_problems


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress Ray's output and log messages about defaults and errors."""
    previous_level = logging.root.manager.disable
    logging.disable(sys.maxsize)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(previous_level)


def _name_problems(config: dict[str, Any]) -> list[Problem]:
    if config.get("cluster_name") in (None, "", "default"):
        return [(["cluster_name"], "is missing; Ray would treat two clusters without their own names as one")]
    return []


def _count_problems(config: dict[str, Any]) -> list[Problem]:
    """Return wrong numbers of workers, in total and by node type; Ray accepts a negative number of a node type."""
    count_problems: list[Problem] = []
    node_types = config.get("available_node_types") or {}
    groups: list[tuple[list[str | int], dict[str, Any]]] = [([], config)]
    groups += [(["available_node_types", name], node_type) for name, node_type in node_types.items()]
    for keys, group in groups:
        low, high = group.get("min_workers", 0), group.get("max_workers")
        for key, count in (("min_workers", low), ("max_workers", high)):
            if count is not None and (not isinstance(count, int) or count < 0):
                count_problems.append(([*keys, key], f"found {count}, but must be a whole number from 0"))
        if isinstance(low, int) and isinstance(high, int) and low > high:
            count_problems.append(([*keys, "min_workers"], f"found {low}, but max_workers is {high}"))
    return count_problems


def _start_problems(config: dict[str, Any]) -> list[Problem]:
    """Return mistakes in the commands that start Ray: different auth modes, a missing token or an open dashboard."""
    start_problems: list[Problem] = []
    modes: dict[str, str] = {}
    for key in _START_COMMANDS:
        commands = " ; ".join(str(command) for command in config.get(key) or ())
        if not commands:
            continue
        mode = re.search(rf"{_AUTH}=(\w+)", commands)
        modes[key] = mode[1] if mode else "not set"
        host = re.search(r"--dashboard-host[= ](\S+)", commands)
        if host and host[1] not in ("127.0.0.1", "localhost"):
            start_problems.append(([key], f"--dashboard-host={host[1]} opens the dashboard to others; give 127.0.0.1"))
    if len(set(modes.values())) > 1:
        described = ", ".join(f"{key} {mode}" for key, mode in modes.items())
        start_problems.append(([_AUTH], f"differs ({described}); the head would refuse workers. Set the same in both"))
    mounts = config.get("file_mounts") or {}
    if "token" in modes.values() and not any(str(target).endswith(".ray/auth_token") for target in mounts):
        text = f'lacks "~/.ray/auth_token", which {_AUTH}=token needs on every node'
        start_problems.append((["file_mounts"], text))
    return start_problems


def short_stop(path: Path) -> list[str]:
    """Return a problem if `fsd-tune stop` would kill a search on this cluster before it has ended in order.

    Args:
        path: a YAML file in which `problems` finds none.

    Returns:
        One line, or nothing if the head gives a job enough time.
    """
    key = _START_COMMANDS[0]
    commands = " ; ".join(str(command) for command in read_cluster_yaml(path).get(key) or ())
    # Ray starts the jobs from the environment of the last `ray start`.
    given = re.findall(rf"\b{_STOP}=[\"']?(\d+)", commands)
    if not commands or (given and int(given[-1]) >= _STOP_SECONDS):
        return []
    found = f"{_STOP}={given[-1]}" if given else f"no {_STOP}, so Ray kills a stopped search after 3 s"
    text = f"found {found}; give `export {_STOP}=60;` before `ray start`, at least {_STOP_SECONDS}"
    return [_sentence(path, yaml.compose(path.read_text(encoding="utf-8")), [key], text)]


def library(config: dict[str, Any]) -> list[str]:
    """Return the problem if this machine lacks the cloud's library, which `ray up` and `ray exec` need.

    Args:
        config: the mapping of a valid YAML.

    Returns:
        One line; empty if the library is installed.
    """
    kind = config["provider"]["type"]
    module, package = _CLOUD_LIBRARIES.get(kind, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        return [f"provider {kind} needs {package}: pip install '{package}'."]
    return []


def lacking(path: Path) -> list[str]:
    """Return the library, ssh key and files of `file_mounts` that `ray up` needs and this machine lacks.

    Args:
        path: a valid YAML file, in which `problems` finds nothing.

    Returns:
        A line for each missing item; it starts with `path`.
    """
    config = read_cluster_yaml(path)
    lines = library(config)
    key = (config.get("auth") or {}).get("ssh_private_key")
    if key and not local_path(str(key)).is_file():
        lines.append(f"auth.ssh_private_key: {key}: no such file; `ssh-keygen -t ed25519 -f {key}` makes one.")
    for target, source in (config.get("file_mounts") or {}).items():
        if not local_path(str(source)).exists():
            makes = "; `ray get-auth-token --generate` makes it" if str(source).endswith(".ray/auth_token") else ""
            lines.append(f"file_mounts: {target}: {source}: no such file{makes}.")
    return [f"{path}: {problem}" for problem in lines]
