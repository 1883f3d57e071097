"""Files on disk and behind URIs: artefacts, checkpoints, model records and the experiment folder of a search."""
