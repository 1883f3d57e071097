"""Run on Ray: connect to a cluster, check its nodes, place trials, submit jobs and fetch their results."""
