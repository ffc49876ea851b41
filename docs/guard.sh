#!/bin/sh
# Is the program that is to be merged slower than the one that is in use? Ends with 1 if it is, or if nothing was
# compared; with 0 if it is not, and, with a warning, if that cannot be told.
#
#     sh guard.sh BEFORE AFTER [FLAG OF harness compare]...        two targets
#     sh guard.sh RUN --baseline FOLDER                            a stored run against earlier ones
#
# SHARE in the environment says how much slower matters, 3% unless it is set.
share=${SHARE:-3%}
harness compare "$@" --fail-if-slower "$share"
case $? in
0) echo "not slower by $share" ;;
3) echo "slower by more than $share" && exit 1 ;;
4) echo "warning: whether it is slower by $share cannot be told; give it a larger --budget" ;;
*) echo "nothing was compared" && exit 1 ;;
esac
