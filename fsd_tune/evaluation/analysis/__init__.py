"""Compare a student's features with its teacher's; the entry point is `fsd_tune.evaluation.analysis.api`."""
