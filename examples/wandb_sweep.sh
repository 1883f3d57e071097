#!/usr/bin/env bash
# Run a search space as a native Weights & Biases sweep. Needs `wandb login`.
#
#   examples/wandb_sweep.sh SPACE TASK TEACHER DATA
#   examples/wandb_sweep.sh search_spaces/fsd_ilg.yaml rte teachers/rte glue
set -euo pipefail
if [ $# -ne 4 ]; then
  sed -n '2,5p' "$0" >&2
  exit 2
fi
space=$1 task=$2 teacher=$3 data=$4

# Build the teacher memory once, so that the agents do not each wait for it.
fsd-tune memory "$space" --task "$task" --teacher "$teacher" --data "$data" --memory memory

fsd-tune sweep-config "$space" --task "$task" --teacher "$teacher" --data "$data" --memory memory --file sweep.yaml

# `wandb sweep` prints the agent's command on standard error: run it on as many machines as share this folder.
wandb sweep sweep.yaml
