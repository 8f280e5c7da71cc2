#!/usr/bin/env bash
# Known bugs, one at a time, in a copy of the tree: the simulator must find each. See tools/mutate.py.
exec "$(dirname "$0")/mutate.py" "$@"
