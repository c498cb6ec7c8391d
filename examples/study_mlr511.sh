#!/usr/bin/env bash
# Measures the models of train_mlr511.sh at equal numbers of operations, on unseen signers.
#
#   examples/study_mlr511.sh DATA OUTPUT MODEL [FOLD] [SPLIT]
#
# DATA, OUTPUT, MODEL, FOLD: as for train_mlr511.sh. SPLIT: test (default), or validation, for choosing defaults.
# Writes OUTPUT/study/MODEL-foldFOLD-SPLIT.json. After an interruption, repeat the command to continue.
set -euo pipefail
data=$1 output=$2 model=$3 fold=${4:-1} split=${5:-test}
examples=$(dirname "$0")
. "$examples/mlr511_folds.sh"
exec python "$examples/study_budgets.py" measure "$output/$model-fold$fold" --name "$model" --dataset class-folders --data-dir "$data" \
  --data-option 'group_by=user(\d+)' --data-option "test_groups=$test" --data-option "validation_groups=$validation" \
  --data-name "MLR511, fold $fold, $split signers" --split "$split" --scratch "$output/study-scratch" \
  --output "$output/study/$model-fold$fold-$split.json"
