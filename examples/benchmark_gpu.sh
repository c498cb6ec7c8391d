#!/usr/bin/env bash
# The sweep that is wanted from a GPU: base and large models at the paper's r, in float32 and bfloat16, at batch sizes
# from 1 to 64, beside stock transformers with sdpa (flash kernels in bfloat16) and with eager attention.
#
#     examples/benchmark_gpu.sh [FOLDER]        # default: speed
#
# A benchmark whose results are there is not run again: after an interruption the same command goes on. Variants that
# do not fit in the GPU's memory are left out and said so. Set COMPILE=1 to measure everything compiled, too.
# In the end FOLDER/speed.md is the page of all results.
set -euo pipefail

folder=${1:-speed}
here=$(cd "$(dirname "$0")" && pwd)
compile=()
if [ "${COMPILE:-0}" = 1 ]; then compile=(--compile); fi
done_folders=()

measure() { # NAME, then arguments of hf-video-tome benchmark
    local name=$1 batch_size
    shift
    # A batch size has a folder of its own, so that little is lost by an interruption.
    for batch_size in 1 4 16 64; do
        local output=$folder/$name-batch-$batch_size
        if [ ! -f "$output/results.json" ]; then
            python -m hf_video_tome benchmark "$@" --batch-size "$batch_size" --dtype bfloat16 --dtype float32 \
                --device cuda --warmup 5 --rounds 30 --output "$output" ${compile[@]+"${compile[@]}"}
        fi
        done_folders+=("$output")
    done
}

plainly() { # The same, but not compiled: flex attention brings a compiled kernel of its own.
    local compile=()
    measure "$@"
}

large=(--config-option hidden_size=1024 --config-option num_hidden_layers=24 --config-option num_attention_heads=16
    --config-option intermediate_size=4096)

# The larger models remove half as many tokens in each of twice as many layers.
measure videomae-base videomae --r 0 --r 75 --r 150 --r 200
measure videomae-large videomae "${large[@]}" --r 0 --r 38 --r 75 --r 100
measure vivit-base vivit --r 0 --r 150 --r 300 --r 400
measure timesformer-base timesformer --r 0 --r 9 --r 18 --r 24
measure vjepa2-large-16 vjepa2 --config-option num_frames=16 --r 0 --r 50 --r 98
measure vjepa2-large-64 vjepa2 --r 0 --r 195 --r 390

# What proportional attention costs, by kernel: flex attention (and sdpa in bfloat16) gets the sizes of tokens in more
# channels of queries and keys, sdpa in float32 as a mask. All else is the same with and without.
attentions=(--attn-implementation sdpa --attn-implementation flex_attention)
for sizes in proportional-attention no-proportional-attention; do
    plainly "vivit-base-$sizes" vivit "${attentions[@]}" --r 0 --r 150 --r 300 "--$sizes"
    plainly "videomae-base-$sizes" videomae "${attentions[@]}" --r 0 --r 75 --r 150 "--$sizes"
done

python "$here/benchmark_page.py" "${done_folders[@]}" --output "$folder/speed.md"
