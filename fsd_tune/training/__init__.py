"""Train models: fine-tune a teacher, distil one student, and the `Distiller` that trials share.

`fsd_tune.training.api` holds the Python calls.
"""
