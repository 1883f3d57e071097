"""Load, describe, initialise, run, write and export the classifiers that are teachers and students."""
