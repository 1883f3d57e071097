"""The command `fsd-tune`: its verbs, their arguments and flags, and how errors are shown."""
