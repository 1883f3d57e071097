"""Ray-distributed hyperparameter search for feature structure distillation (FSD) of BERT students."""

__version__ = "0.1.0"
