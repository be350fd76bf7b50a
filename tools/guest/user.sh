#!/bin/sh
# user.sh NAME FOLDER PYTHON: what a user who is not root does on a device with systemd, according to docs/install.md.
# FOLDER has `bundle`, `mine.npz` and `profl-train`. Each line that is not as the page says is told, and the status is 1.
name=$1 folder=$2 python=$3
failed=0
useradd --create-home "$name"
number=$(id -u "$name")
loginctl enable-linger "$name" # the user's manager runs, as it does where somebody is logged in
while ! [ -S "/run/user/$number/systemd/private" ]; do sleep 1; done
cd "/home/$name" || exit 1

as_user() {
  runuser -u "$name" -- env "XDG_RUNTIME_DIR=/run/user/$number" "$@"
}
edge() {
  echo "$python -m edge_runtime.device $*"
}
train="$folder/bundle --block 1 --data npz:$folder/mine.npz --steps 2 --threads 1 --json"

expect() { # what must be said (a pattern), a title, and a command
  wanted=$1 title=$2
  shift 2
  said=$("$@" 2>&1)
  if echo "$said" | grep -q -E -- "$wanted"; then
    echo "ok      $title: $(echo "$said" | grep -o -E -- "$wanted" | head -n 1)"
  else
    failed=1
    echo "FAILED  $title: no '$wanted' in:"
    echo "$said" | tail -n 8
  fi
}

# shellcheck disable=SC2046,SC2086 # words are split on purpose
{
  expect '"limit_kind": ?"rlimit"' "a training of a user outside of any scope" \
    as_user $(edge train $train --memory-limit 128MB -o one.safetensors)
  expect '"limit_kind": ?"cgroup-v2"' "a training in a scope of the user's manager" \
    as_user systemd-run --user --scope --quiet $(edge train $train --memory-limit 128MB -o two.safetensors)
  expect 'group \(cgroup-v2\) 20.0MB is below' "a scope with less memory than a training needs" \
    as_user systemd-run --user --scope --quiet -p MemoryMax=20M $(edge train $train -o three.safetensors)
  expect 'cgroup-v2' "the doctor in a scope" \
    as_user systemd-run --user --scope --quiet $(edge doctor --limit 128MB --json)
  expect '"limit_kind": ?"cgroup-v2"' "a training of a service of the system with a limit" \
    systemd-run --quiet --pipe --wait -p MemoryMax=200M -p Delegate=memory $(edge train $train --memory-limit 128MB -o "/home/$name/four.safetensors")
  expect '"limit_kind": ?"cgroup-v2"' "profl-train in a scope of the user's manager" \
    as_user systemd-run --user --scope --quiet "$folder/profl-train" $train --memory-limit 128MB -o five.safetensors
}
ls "/sys/fs/cgroup/user.slice/user-$number.slice/user@$number.service/app.slice" | grep profl-edge && failed=1 # left behind
exit $failed
