"""Tasks and their data: GLUE and tasks of your own, their splits, batches and metrics."""
