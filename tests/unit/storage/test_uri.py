"""Places by name."""

import pytest

from fsd_tune.errors import InputError
from fsd_tune.storage.uri import check_names, is_uri, joined, last_name, misses_slash, problems_of


def test_a_name_goes_below_a_place_and_before_its_query():
    assert joined("runs", "rte") == "runs/rte"
    assert joined("s3://bucket/runs/", "rte", "best") == "s3://bucket/runs/rte/best"
    assert joined("s3://b/runs?region=eu&scheme=http", "rte") == "s3://b/runs/rte?region=eu&scheme=http"
    assert last_name("s3://b/runs/rte/?region=eu") == "rte" and last_name("gs://b") == "b"
    assert is_uri("gs://bucket") and not is_uri("runs/s3:rte")


def test_a_path_that_was_meant_as_a_uri():
    assert misses_slash("s3:/bucket/x") and misses_slash("file:/tmp/x")
    assert not any(map(misses_slash, ("s3", "file", "runs/s3:/x", "s3://bucket", "runs/rte")))


def test_what_is_wrong_with_a_uri_is_said_without_asking_the_storage():
    assert problems_of("s3://bucket/runs", "--output") == []
    assert "Did you mean `hdfs`?" in problems_of("hdsf://bucket/runs", "--output")[0]
    said = problems_of("s3://name:topsecret@bucket/runs", "--output")
    assert "holds a key" in said[0] and "topsecret" not in said[0]
    for leaking in ("s3://AKIA:to/psecret@b/x", "s3://b/x?access_key=A&secret_key=psecret"):
        said = problems_of(leaking, "--output")
        assert "holds a key" in said[0] and "psecret" not in said[0]
    assert problems_of("s3://[x", "--output") == [
        "--output: found s3://[x, but must be a URI such as s3://bucket/runs/rte."
    ]
    assert problems_of("s3://", "--memory") == ["--memory: s3:// names no bucket."]
    assert problems_of("s3://b/a c", "--output") == ["--output: s3://b/a c holds a space; write it as %20."]


def test_names_that_no_file_below_a_folder_can_have():
    unusable = ["/etc/x", "..", "a/../../x", "a//b", "./x", "a/", "", "a\\..\\x", "a\0b", "a\nb", "file/below"]
    usable = ["file", "a/b..c/...", "model (1).bin", "é", "a:b", ".hidden/x"]
    for name in unusable:
        with pytest.raises(InputError) as caught:
            check_names([name, *usable], "s3://b/r")
        (line,) = caught.value.problems
        assert line.startswith(f"s3://b/r: holds {name!r}, ")
    check_names(usable, "s3://b/r")
    with pytest.raises(InputError) as caught:
        check_names([f"../{number}" for number in range(99)], "s3://b/r")
    assert len(caught.value.problems) == 10
