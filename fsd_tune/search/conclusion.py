"""Complete a search's folder at its end: best student, its figures, leaderboard, report and tracking."""

from fsd_tune.models import inference, layer_cka
from fsd_tune.report import html_report
from fsd_tune.report.results import Results
from fsd_tune.search.best_student import export_best
from fsd_tune.search.plan import SearchPlan
from fsd_tune.search.wandb_logger import WandbSearchLogger
from fsd_tune.storage import artifacts
from fsd_tune.storage.model_record import ModelRecord


def conclude(plan: SearchPlan, results: Results, tracker: WandbSearchLogger, done: bool) -> None:
    """Export the best student, write leaderboard and report, close the tracking, and store everything.

    Args:
        plan: the plan of the search.
        results: the results in the search's folder; their summary receives the figures of the best student.
        tracker: the W&B logger of the search.
        done: true if the search ran to its end. Only then is the best student compared with its teacher and, after a
            search on a holdout, scored on dev. Nothing else scores a student on dev after such a search.
    """
    spec, inputs = plan.spec, plan.inputs
    experiment = plan.experiment
    if results.best is not None:
        experiment.download_checkpoint(str(results.best["folder"]))
    best = export_best(results, spec.teacher.path)
    if done and best is not None:
        if inputs.final is not None:
            dev_score = inference.score_on_dev(best.model, inputs.task, inputs.final, spec.precision, spec.device)
            results.summary.update(dev=dev_score)
            artifacts.write_json(
                best.folder / artifacts.MODEL_RECORD, ModelRecord.read(best.folder).as_json() | {"dev": dev_score}
            )
        cka = layer_cka.of_teacher(spec.teacher.path, best.model, spec.dev, spec.device)
        results.summary.update(layer_cka=cka)
        results.summary.write(experiment.folder)
    html_report.write_report(results)
    tracker.conclude(results)
    tracker.close()
    experiment.sync_all()
