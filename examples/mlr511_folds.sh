# Test and validation signers of each fold of MLR511; the others are for training. Source this file with $fold set.
case $fold in
  1) test=02,10,11,12 validation=05,09 ;;
  2) test=01,03,04,05 validation=08,12 ;;
  3) test=06,07,08,09 validation=03,11 ;;
  *) echo "error: the fold must be 1, 2 or 3, got $fold" >&2; exit 2 ;;
esac
