#!/bin/sh
# What a device does according to docs/install.md, from a folder that holds `dist`, `bundle` and `mine.npz`: install the
# wheel, look at the machine, train a block and profile the bundle. Ends with the first command that fails.
set -eu
step() { # seconds since the start, and what begins
  echo "== $(($(date +%s) - began)) $*"
}
began=$(date +%s)
step environment
python3 -m venv profl
step wheel
profl/bin/pip install --quiet --no-index --find-links dist profl-edge
step doctor
profl/bin/profl-edge doctor --limit 128MB
step inspect
profl/bin/profl-edge inspect bundle
step train
profl/bin/profl-edge train bundle --block 1 --data npz:mine.npz --epochs 1 --memory-limit 128MB -o update.safetensors
step profile
profl/bin/profl-profile bundle --limit 128MB -o phone.json
step inspect with the profile
profl/bin/profl-edge inspect bundle --profile phone.json
step end
