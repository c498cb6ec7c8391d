#!/usr/bin/env bash
# Runs the benchmark sweep for a GPU: base and large models at the paper's r, in float32 and bfloat16, at batch sizes
# from 1 to 64, against stock transformers with sdpa (flash kernels in bfloat16) and eager attention.
#
#     examples/benchmark_gpu.sh [FOLDER]        # default: speed
#
# Benchmarks with existing results are skipped: after an interruption, repeat the command to continue. Variants that do
# not fit in GPU memory are skipped and marked. Set COMPILE=1 to also measure compiled models. All results are written
# to the page FOLDER/speed.md.
set -euo pipefail

folder=${1:-speed}
here=$(cd "$(dirname "$0")" && pwd)
compile=()
if [ "${COMPILE:-0}" = 1 ]; then compile=(--compile); fi
done_folders=()

measure() { # NAME, then arguments of hf-video-tome benchmark
    local name=$1 batch_size
    shift
    # Each batch size has its own folder, so that an interruption loses little.
    for batch_size in 1 4 16 64; do
        local output=$folder/$name-batch-$batch_size
        if [ ! -f "$output/results.json" ]; then
            python -m hf_video_tome benchmark "$@" --batch-size "$batch_size" --dtype bfloat16 --dtype float32 \
                --device cuda --warmup 5 --rounds 30 --output "$output" ${compile[@]+"${compile[@]}"}
        fi
        done_folders+=("$output")
    done
}

plainly() { # Like measure, but without compilation: flex attention has its own compiled kernel.
    local compile=()
    measure "$@"
}

large=(--config-option hidden_size=1024 --config-option num_hidden_layers=24 --config-option num_attention_heads=16
    --config-option intermediate_size=4096)

# The larger models have twice as many layers, and each removes half as many tokens.
measure videomae-base videomae --r 0 --r 75 --r 150 --r 200
measure videomae-large videomae "${large[@]}" --r 0 --r 38 --r 75 --r 100
measure vivit-base vivit --r 0 --r 150 --r 300 --r 400
measure timesformer-base timesformer --r 0 --r 9 --r 18 --r 24
measure vjepa2-large-16 vjepa2 --config-option num_frames=16 --r 0 --r 50 --r 98
measure vjepa2-large-64 vjepa2 --r 0 --r 195 --r 390

# Cost of proportional attention by kernel: flex attention (and sdpa in bfloat16) gets the token sizes in more channels
# of queries and keys, sdpa in float32 as a mask. Everything else is equal with and without it.
attentions=(--attn-implementation sdpa --attn-implementation flex_attention)
for sizes in proportional-attention no-proportional-attention; do
    plainly "vivit-base-$sizes" vivit "${attentions[@]}" --r 0 --r 150 --r 300 "--$sizes"
    plainly "videomae-base-$sizes" videomae "${attentions[@]}" --r 0 --r 75 --r 150 "--$sizes"
done

python "$here/benchmark_page.py" "${done_folders[@]}" --output "$folder/speed.md"
