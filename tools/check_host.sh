#!/bin/sh
# What must be on a machine before anything is installed into .venv: said at once, each in one line with its remedy.
# Usage: check_host.sh PYTHON VENV
set -u
python=$1
venv=$2
missing=0
packages=""
lacks() { # what is missing, and the Debian package that has it
  echo "make: $1" >&2
  missing=1
  packages="$packages $2"
}

if ! command -v "$python" >/dev/null 2>&1; then
  echo "make: $python: not found; install Python 3.11 or newer, or name another one: make PYTHON=python3.12" >&2
  exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  version=$("$python" -c 'import platform; print(platform.python_version())')
  echo "make: $python is Python $version; 3.11 or newer is needed: name another one, as in make PYTHON=python3.12" >&2
  exit 1
fi
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  "$python" -c 'import ensurepip, venv' 2>/dev/null || lacks "$python cannot make virtual environments" python3-venv
fi
"$python" -c 'import os, sysconfig; os.stat(os.path.join(sysconfig.get_paths()["include"], "Python.h"))' 2>/dev/null ||
  lacks "$python has no headers (Python.h)" python3-dev
command -v "${CXX:-c++}" >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || lacks "there is no C++ compiler" g++
if [ "$missing" -ne 0 ]; then
  echo "make: on Debian and Ubuntu: apt install$packages" >&2
  exit 1
fi
