"""What is in the local cache needs no hub."""

import os
import subprocess
import sys

from tests.helpers import tiny


def test_a_cached_model_needs_no_hub(tmp_path):
    """Its description comes from the cache, later loads do not wait for the hub again, and no state remains changed."""
    snapshot = tmp_path / "hub/models--some--name/snapshots/abc"
    (tmp_path / "hub/models--some--name/refs").mkdir(parents=True)
    (tmp_path / "hub/models--some--name/refs/main").write_text("abc")
    tiny.write_teacher(snapshot, None)
    # The hub's libraries sleep between their attempts.
    code = """
import time
waits = []
time.sleep = waits.append
from fsd_tune.models.loading import load_classifier, load_tokenizer, read_model_info
from fsd_tune.data.splits import get_task
print(read_model_info("some/name").layers)
print(len(load_tokenizer("some/name")("a film")["input_ids"]))
print(load_classifier("some/name", get_task("sst2")).num_labels)
import os, huggingface_hub
print(huggingface_hub.constants.HF_HUB_OFFLINE, os.environ["HF_HUB_OFFLINE"], sum(waits) < 1)
"""
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4", "4", "2", "False", "0", "True"] and done.stderr == ""
