# The signers of MLR511 that a fold tests on and chooses by; the others are trained on. To be sourced, with $fold set.
case $fold in
  1) test=02,10,11,12 validation=05,09 ;;
  2) test=01,03,04,05 validation=08,12 ;;
  3) test=06,07,08,09 validation=03,11 ;;
  *) echo "error: the fold must be 1, 2 or 3, got $fold" >&2; exit 2 ;;
esac
