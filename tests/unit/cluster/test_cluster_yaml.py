"""The clusters' YAMLs that are shipped, by Ray's own validation and ours; and what each mistake is called."""

import re
from importlib import metadata

import pytest
import yaml

from fsd_tune.cluster import cluster_yaml
from fsd_tune.settings.loader import load, parse_flags
from tests import ROOT

SHIPPED = ["cluster.yaml", "examples/cluster/gcp.yaml", "examples/cluster/hosts.yaml"]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_files_are_sound(name):
    assert cluster_yaml.problems(ROOT / name) == []
    assert cluster_yaml.short_stop(ROOT / name) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "found no RAY_JOB_STOP_WAIT_TIME_S, so Ray kills a stopped search after 3 s"),
        ("export RAY_JOB_STOP_WAIT_TIME_S=3;", "found RAY_JOB_STOP_WAIT_TIME_S=3; give"),
        ("RAY_JOB_STOP_WAIT_TIME_S='60'", ""),
        ("export A=1 RAY_JOB_STOP_WAIT_TIME_S=20;", ""),
    ],
)
def test_a_search_has_time_to_stop(tmp_path, given, said):
    path = tmp_path / "mine.yaml"
    config = yaml.safe_load((ROOT / SHIPPED[0]).read_text())
    config["head_start_ray_commands"] = ["ray stop", f"{given} ray start --head"]
    path.write_text(yaml.safe_dump(config))
    found = cluster_yaml.short_stop(path)
    assert bool(found) == bool(said) and all(said in line for line in found)
    assert all(re.match(rf"{path}:\d+: head_start_ray_commands: ", line) for line in found)


def test_kubernetes_authenticates_and_lets_a_search_stop():
    cluster = yaml.safe_load((ROOT / "examples/cluster/rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "60"} in head["env"]


def test_the_clouds_files_are_one_cluster():
    """They differ in the cloud alone: the same nodes' roles, commands and failure detection."""
    aws, gcp = (yaml.safe_load((ROOT / name).read_text()) for name in SHIPPED[:2])
    for key in ("max_workers", "idle_timeout_minutes", "docker", "file_mounts", "setup_commands", "head_node_type"):
        assert aws[key] == gcp[key], key
    assert aws["head_start_ray_commands"] == gcp["head_start_ray_commands"]
    assert aws["worker_start_ray_commands"] == gcp["worker_start_ray_commands"]
    types = aws["available_node_types"]
    assert types.keys() == gcp["available_node_types"].keys() == {"head", "gpu", "gpu_spot"}
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu"]["min_workers"] == types["gpu_spot"]["min_workers"] == 0
    assert types["gpu_spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_kubernetes_runs_the_same_ray_with_the_same_resources():
    job = yaml.safe_load((ROOT / "examples/cluster/rayjob.yaml").read_text())
    cluster, aws = job["spec"]["rayClusterSpec"], yaml.safe_load((ROOT / "cluster.yaml").read_text())
    ray = metadata.version("ray")
    assert cluster["rayVersion"] == ray and f"rayproject/ray:{ray}-" in aws["docker"]["image"]
    (group,) = cluster["workerGroupSpecs"]
    worker = group["template"]["spec"]["containers"][0]
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert worker["image"] == head["image"] and ray in worker["image"]
    asked = aws["available_node_types"]["gpu"]["resources"]
    assert worker["resources"]["limits"]["cpu"] == asked["CPU"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == asked["GPU"]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, aws["max_workers"])
    assert worker["resources"]["requests"] == worker["resources"]["limits"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert aws["available_node_types"]["head"]["resources"] == {"CPU": 0}, "neither head trains"
    (told,) = [one["value"] for one in head["env"] if one["name"] == "FSD_TUNE_NODES"]
    assert yaml.safe_load(told) == {"available_node_types": {"gpu": {"max_workers": 4, "resources": asked}}}
    tag = aws["docker"]["image"].partition(":")[2]
    assert worker["image"].endswith(f":{tag}"), "the image is built on the one that cluster.yaml starts"
    mounted = [one["mountPath"] for one in worker["volumeMounts"]]
    assert mounted == [one["mountPath"] for one in head["volumeMounts"]] == ["/shared"]
    assert "-v /mnt/shared:/shared" in aws["docker"]["run_options"]


def test_kubernetes_starts_a_command_that_is_one(monkeypatch):
    """The entry point parses, and asks for no more of a GPU than a worker has."""
    job = yaml.safe_load((ROOT / "examples/cluster/rayjob.yaml").read_text())
    words = job["spec"]["entrypoint"].split()
    assert words[:2] == ["fsd-tune", "search"]
    kept = [word for word in words[3:] if not word.startswith("/shared/")]
    assert kept == ["--task", "rte", "--teacher", "--data", "--output", "--gpus-per-trial", "0.5"]
    settings = load(ROOT / "search_spaces" / "fsd_ilg.yaml", parse_flags(words[-2:]))
    assert settings.resources.gpus_per_trial == 0.5


def changed(tmp_path, change):
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    change(config)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    return cluster_yaml.problems(path)


def put(*keys, value):
    def change(config):
        for key in keys[:-1]:
            config = config[key]
        if value is None:
            del config[keys[-1]]
        else:
            config[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("cluster_name", value=None), "cluster_name: is missing"),
        (put("max_workers", value=-1), "max_workers: -1 is less than the minimum of 0"),
        (put("available_node_types", "gpu", "min_workers", value=-2), "available_node_types.gpu.min_workers: found -2"),
        (put("available_node_types", "gpu", "min_workers", value=3), "found 3, but max_workers is 2"),
        (put("head_node_type", value="haed"), "`head_node_type` must be one of `available_node_types`"),
        (put("max_worker", value=3), "max_worker: unknown key. Did you mean `max_workers`?"),
        (put("docker", "imag", value="x"), "docker.imag: unknown key. Did you mean `image`?"),
        (put("available_node_types", value=["head"]), "available_node_types: found ['head'], but must be a mapping."),
        (put("file_mounts", value=7), "file_mounts: found 7, but must be a mapping."),
        (put("worker_start_ray_commands", value=7), "worker_start_ray_commands: found 7, but must be a list."),
        (put("provider", "type", value=["aws"]), "provider.type: found ['aws'], but must be a string"),
        (put("worker_start_ray_commands", value=["ray start --address=$RAY_HEAD_IP:6379"]), "RAY_AUTH_MODE: differs"),
        (put("file_mounts", value={"~/fsd_tune": "."}), 'file_mounts: lacks "~/.ray/auth_token"'),
        (
            put("head_start_ray_commands", value=["RAY_AUTH_MODE=token ray start --head --dashboard-host=0.0.0.0"]),
            "opens the dashboard to others",
        ),
    ],
)
def test_a_mistake_is_named_with_its_key(change, said, tmp_path):
    found = changed(tmp_path, change)
    assert found and all(line.startswith(str(tmp_path / "mine.yaml")) for line in found)
    assert any(said in line for line in found), found


def test_a_mistake_is_named_with_its_line(tmp_path):
    text = (ROOT / "examples" / "cluster" / "hosts.yaml").read_text()
    path = tmp_path / "mine.yaml"
    for wrong, key in (("worker_ips: 7", "provider.worker_ips"), ("x: 1", "provider.worker_ips")):
        path.write_text(re.sub(r"worker_ips: .*", "worker_ips: 7", text) if "ips" in wrong else text + wrong)
        (found,) = cluster_yaml.problems(path)
        number = next(i for i, line in enumerate(path.read_text().splitlines(), start=1) if wrong in line)
        assert found.startswith(f"{path}:{number}: {key if 'ips' in wrong else 'x: unknown key'}"), found


def test_a_key_of_several_types(tmp_path):
    config = yaml.safe_load((ROOT / "examples" / "cluster" / "gcp.yaml").read_text())
    config["provider"]["project_id"] = 5
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    assert any("provider.project_id: found 5, but must be a string" in line for line in cluster_yaml.problems(path))


def test_a_file_that_is_none(tmp_path):
    assert "no such file" in cluster_yaml.problems(tmp_path / "none.yaml")[0]
    (tmp_path / "list.yaml").write_text("[1]")
    assert "list.yaml:1: found a list" in cluster_yaml.problems(tmp_path / "list.yaml")[0]
    (tmp_path / "broken.yaml").write_text("a: [")
    assert "broken.yaml:1: is not YAML" in cluster_yaml.problems(tmp_path / "broken.yaml")[0]


def test_what_ray_up_would_miss_here(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    said = "\n".join(cluster_yaml.lacking(ROOT / "examples" / "cluster" / "hosts.yaml"))
    assert "auth.ssh_private_key: ~/.ssh/id_ed25519: no such file" in said
    assert "~/.ray/auth_token: no such file; `ray get-auth-token --generate` makes it" in said
    for name in (".ssh/id_ed25519", ".ray/auth_token"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert cluster_yaml.lacking(ROOT / "examples" / "cluster" / "hosts.yaml") == []
