#!/usr/bin/env bash
# Measures the models of train_mlr511.sh at equal operations, on signers that none of them has seen.
#
#   examples/study_mlr511.sh DATA OUTPUT MODEL [FOLD] [SPLIT]
#
# DATA, OUTPUT, MODEL, FOLD: as for train_mlr511.sh. SPLIT: test (default), or validation, on which defaults are chosen.
# Writes OUTPUT/study/MODEL-foldFOLD-SPLIT.json. Interrupted, it goes on where it stopped.
set -euo pipefail
data=$1 output=$2 model=$3 fold=${4:-1} split=${5:-test}
examples=$(dirname "$0")
case $fold in
  1) test=02,10,11,12 validation=05,09 ;;
  2) test=01,03,04,05 validation=08,12 ;;
  3) test=06,07,08,09 validation=03,11 ;;
  *) echo "error: the fold must be 1, 2 or 3, got $fold" >&2; exit 2 ;;
esac
exec python "$examples/study_budgets.py" measure "$output/$model-fold$fold" --name "$model" --dataset class-folders --data-dir "$data" \
  --data-option 'group_by=user(\d+)' --data-option "test_groups=$test" --data-option "validation_groups=$validation" \
  --data-name "MLR511, fold $fold, $split signers" --split "$split" --scratch "$output/study-scratch" \
  --output "$output/study/$model-fold$fold-$split.json"
