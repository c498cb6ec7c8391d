#!/usr/bin/env bash
# Makes the plots of docs/analysis.md: every analysis of every bundled checkpoint, on Moving Digits.
#
#     examples/analyze_moving_digits.sh [FOLDER]        # default: analysis
#
# Existing results are kept: after an interruption, repeat the command to continue. The plots and their data are written
# to FOLDER/KIND-MODEL.png, .csv and .json. Keep the machine quiet while settings are timed.
set -euo pipefail

folder=${1:-analysis}

analyze() { # KIND, MODEL, then more arguments
    local kind=$1 model=$2 runs=$folder/runs
    shift 2
    local output=$runs/$kind-$model
    if [ ! -f "$output/$kind.json" ]; then
        python -m hf_video_tome analyze "$kind" "$model-moving-digits" "$@" --output "$output"
    fi
    local file
    for file in "$output/$kind".*; do cp "$file" "$folder/$kind-$model.${file##*.}"; done
    for file in "$output/$kind"-*-0.png; do
        if [ -f "$file" ]; then cp "$file" "$folder/$(basename "${file%-0.png}")-$model.png"; fi
    done
}

mkdir -p "$folder"
for model in videomae vivit timesformer motionformer vjepa2; do
    # Number of tokens to remove per layer in analyses with a single r: 13 % of a matched set.
    case $model in
        timesformer | motionformer) r=5 region=(--region space) ;;
        *) r=38 region=() ;;
    esac
    data=(--dataset moving-digits)
    analyze accuracy $model "${data[@]}" --limit 480 --mode merge --mode drop --rounds 30
    # Settings are ordered as in accuracy.csv: 3 is the constant schedule at 25 %.
    analyze confusion $model --evaluation "$folder/runs/accuracy-$model/evaluation" --before 0 --after 3
    analyze layers $model "${data[@]}" --r $r
    analyze splice $model "${data[@]}" --r $r ${region[@]+"${region[@]}"}
done
