#!/usr/bin/env bash
# Trains the models of docs/real-video.md on MLR511, Arabic sign language: 10 words, 12 signers, split by signer.
#
#   examples/train_mlr511.sh DATA OUTPUT MODEL [FOLD]
#
# DATA: class folders of the clips, such as those of MLR511-ArabicSignLanguage-Dataset-MP4 in the repository
#   seba20-0/SL-TSSI-DenseNet (public, without a licence: do not share it, nor weights trained on it). Any folder of class folders
#   with user01 to user12 in the file names works.
# OUTPUT: folder for the checkpoints.
# MODEL: videomae, vivit, timesformer, vjepa2 (from scratch on full clips), or videomae-pretrained (masked pre-training, then fine-tuning on
#   full clips, like the published VideoMAE checkpoints). An interrupted training is continued.
# FOLD: 1 (default), 2 or 3: selects the four test signers. Two of the others are used to select the epoch.
set -euo pipefail
data=$1 output=$2 model=$3 fold=${4:-1}
examples=$(dirname "$0")
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

. "$examples/mlr511_folds.sh"
size='"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "initializer_range": 0.05'
grid='"image_size": 48, "patch_size": 8, "num_frames": 16, "intermediate_size": 256'
case $model in
  videomae | videomae-pretrained) config="{$size, $grid, \"tubelet_size\": 2}" ;;
  vivit) config="{$size, \"image_size\": 48, \"num_frames\": 16, \"intermediate_size\": 256, \"tubelet_size\": [2, 8, 8]}" ;;
  timesformer) config="{$size, ${grid/16/8}}" ;;
  vjepa2) config="{$size, \"crop_size\": 48, \"frames_per_clip\": 16, \"patch_size\": 8, \"tubelet_size\": 2, \"mlp_ratio\": 2.0, \
\"num_pooler_layers\": 1, \"pred_hidden_size\": 12, \"pred_num_attention_heads\": 1, \"pred_num_hidden_layers\": 1, \
\"pred_num_mask_tokens\": 1}" ;;
  *) echo "error: unknown model $model" >&2; exit 2 ;;
esac

resume() { if compgen -G "$1/checkpoint-*" > /dev/null; then echo --resume_from_checkpoint last; fi; }
epochs=50
if [ "$model" = videomae ]; then epochs=100; fi
folder=$output/$model-fold$fold
common=(--data_dir "$data" --group_by 'user(\d+)' --test_groups "$test" --validation_groups "$validation"
  --cache_size 54 --cache_dir "$output/cache" --subtract_mean_frame --min_area 0.5 --flip 0.5 --use_cpu --per_device_train_batch_size 16)
start=(--architecture "$model" --config "$config")
if [ "$model" = videomae-pretrained ]; then
  start=(--checkpoint "$folder-pretraining")
  if [ ! -f "$folder-pretraining/model.safetensors" ]; then
    python "$examples/pretrain_videomae.py" "${common[@]}" --config "$config" --output_dir "$folder-pretraining" \
      --learning_rate 1e-3 --num_train_epochs 60 --mask_ratio 0.75 $(resume "$folder-pretraining")
  fi
fi
exec python "$examples/train_class_folder.py" "${common[@]}" "${start[@]}" --output_dir "$folder" \
  --learning_rate 1e-3 --num_train_epochs "$epochs" $(resume "$folder")
