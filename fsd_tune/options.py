"""Arguments and options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

Space = Annotated[Path, typer.Argument(help="search-space YAML, such as search_spaces/fsd_ilg.yaml")]
OptionalSpace = Annotated[Path | None, typer.Argument(help="YAML with the settings; flags override it")]
TaskName = Annotated[str, typer.Option("--task", help="GLUE task: cola sst2 mrpc qqp stsb mnli qnli rte wnli")]
Teacher = Annotated[str, typer.Option("--teacher", help="fine-tuned teacher: folder or hub id")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="folder that holds SST-2/, RTE/ ...; without it nyu-mll/glue from the hub")
]
Output = Annotated[Path, typer.Option("--output", help="folder to write; new, or holding the same thing")]
MemoryFolder = Annotated[
    Path | None,
    typer.Option("--memory", help="folder for teacher memories; default: memory/ in --output, for distill beside it"),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what --output holds")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]
Verbose = Annotated[bool, typer.Option("--verbose", help="also every report of every trial")]
AsJson = Annotated[bool, typer.Option("--json", help="the result as one JSON document on standard output")]
Address = Annotated[
    str | None, typer.Option("--address", help="Ray cluster to run on; without it a local Ray, or RAY_ADDRESS")
]
TemporaryFolder = Annotated[
    Path | None, typer.Option("--temp-dir", help="folder for Ray's sockets and logs (a short path); default /tmp/ray")
]
