"""The verb that runs the protocol of the paper."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from fsd_tune.cli import options
from fsd_tune.cli.app import INPUTS, SEARCH, TRAINING, option, verb
from fsd_tune.cli.values import check_outputs, show_result
from fsd_tune.errors import ProblemCollector, nearest
from fsd_tune.progress import Display

_TASK = "{task}"


@verb(SEARCH)
@option("--task", panel=INPUTS, required=True, help="GLUE task, or several, separated by commas; all: the nine.")
@option("--teacher", panel=INPUTS, help="Fine-tuned teacher: folder or hub id; for several tasks 'teachers/{task}'.")
@option("--model", panel=INPUTS, help="Pretrained model of students and teachers; default: that of --teacher.")
@options.data
@options.folder_flag("--output", "Folder of all tasks; each has its own in it.", required=True)
@option("--systems", panel=TRAINING, help="Some of vkd, pkd, rkd, fsd_i, fsd_l, fsd_g, fsd_il and fsd; default: all.")
@option("--trials", panel=TRAINING, type=options.Number(int, 1, 10**6), help="Trials of each search; default: 64.")
@option("--small", panel=TRAINING, is_flag=True, help="Shrink everything for a laptop: an hour with a MiniLM teacher.")
@options.device
@options.address
@options.temp_dir
@options.quiet
@options.as_json
def paper(*, task: str, teacher: str | None, output: Path, systems: str | None, quiet: bool, **flags: Any) -> None:
    """Run the paper's protocol, beside its Tables 2 and 3.

    It searches every system with the same budget and trains the winners on six seeds. The same command continues
    after an interruption.
    """
    check_outputs({"--output": output})
    from fsd_tune.paper import api, page
    from fsd_tune.paper.facts import IN_TABLES, SYSTEMS
    from fsd_tune.paper.protocol import PaperRun

    problems = ProblemCollector()
    tasks = _tasks(task, teacher, problems)
    default = IN_TABLES if flags["small"] else tuple(SYSTEMS)
    names = default if systems is None else tuple(name.strip() for name in systems.split(","))
    for name in dict.fromkeys(names):
        if name not in SYSTEMS:
            close = nearest(name, SYSTEMS)
            problems.add(f"--systems: found {name}, but must be among {', '.join(SYSTEMS)}.{close}")
        elif names.count(name) > 1:
            problems.add(f"--systems: found {name} more than once.")
    problems.raise_any()
    as_json, temporary = flags.pop("as_json"), flags.pop("temp_dir")
    run = PaperRun(task="", output=output, systems=names, ray_temporary=temporary, **flags)
    runs = [replace(run, task=each, teacher=teacher and teacher.replace(_TASK, each)) for each in tasks]
    for each in runs:
        with problems.collect():
            api.check(each)
    problems.lines = list(dict.fromkeys(problems.lines))
    problems.raise_any()
    lines, documents = [], {}
    with closing(Display(quiet)) as display:
        for each in runs:
            results = api.run_task(each, display)
            lines += page.result_lines(results, output)
            documents[each.task] = results.as_json()
    show_result({"tasks": documents}, as_json, lines)


def _tasks(text: str, teacher: str | None, problems: ProblemCollector) -> list[str]:
    """Return the ids of the tasks, and note those that are not GLUE's."""
    from fsd_tune.data.tasks import TASKS, name_key

    tasks = list(TASKS) if text == "all" else [name.strip() for name in text.split(",")]
    ids = []
    for name in tasks:
        if name_key(name) in TASKS:
            ids.append(name_key(name))
        else:
            problems.add(f"--task: found {name}, but must be among {', '.join(TASKS)}, or all.{nearest(name, TASKS)}")
    if len(set(ids)) < len(ids):
        problems.add(f"--task: found a task more than once in {text}.")
    if teacher is not None and len(tasks) > 1 and _TASK not in teacher:
        problems.add(f"--teacher: found {teacher}, but several tasks need a place for their ids: 'teachers/{_TASK}'.")
    return ids
