#!/bin/sh
# Puts Fashion-MNIST's IDX files (Debian package dataset-fashion-mnist, MIT) into the folder given, without root.
set -u
target=$1
installed=/usr/share/datasets/fashion-mnist
if [ -d "$installed" ] || [ -f "$target/train-images-idx3-ubyte.gz" ]; then
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if (cd "$work" && apt-get download -qq dataset-fashion-mnist) >"$work/log" 2>&1 && dpkg-deb -x "$work"/*.deb "$work/tree"; then
  mkdir -p "$target"
  cp "$work"/tree/usr/share/datasets/fashion-mnist/* "$target"/
  echo "Fashion-MNIST unpacked into $target"
else
  echo "Fashion-MNIST is not to be had here (apt-get download dataset-fashion-mnist failed); the demo uses mnist-5k" >&2
fi
