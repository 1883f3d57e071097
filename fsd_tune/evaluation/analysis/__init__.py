"""Compare a student's features with its teacher's; `fsd_tune.evaluation.analysis.api` starts it."""
