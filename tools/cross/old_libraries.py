"""Libraries to link against so that what is linked loads with an old C library.

The compiler of this machine links against the C and C++ libraries of this machine and asks for the newest version of
each function. Here it is given others, which only have names: those of an old C library come out of zig, which has
lists of them for every release; those of the C++ library are this one's own up to a version. What that lacks, and the
compiler's headers need, is linked from the static C++ library, as the compilers of old enterprise releases do.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from device_profiles.errors import ExecutionError
from tools.cross.machines import C_LIBRARY, CXX_LIBRARY, Machine

# Value, size, type, binding, visibility and section come before a name and its version in readelf's table.
_SYMBOL = re.compile(
    r"^ *\d+: \S+ +\S+ (FUNC|OBJECT|TLS) +\S+ +DEFAULT +(?!UND)\S+ (\S+?)@@?(\w+?)_([\d.]+)$", re.MULTILINE
)
_SECTION = {"FUNC": ".text", "OBJECT": ".data", "TLS": ".tbss"}
_TYPE = {"FUNC": "function", "OBJECT": "object", "TLS": "tls_object"}
# The linker takes these for its names without a version, which are scripts: the library, and what it needs besides.
_LIBC = "GROUP ( libc.so.6 libc_nonshared.a AS_NEEDED ( libpthread.so.0 libdl.so.2 libld.so.2 ) )\n"
_SCRIPTS = {"libm.so": "INPUT ( libm.so.6 )\n", "libpthread.so": "INPUT ( libpthread.so.0 )\n", "libc.so": _LIBC}
_CXX = "INPUT ( libstdc++.so.6 -l:libstdc++.a )\n"


def old_libraries(machine: Machine) -> Path:
    """The folder of these libraries for `machine`, made unless it is there.

    Raises:
        ExecutionError: zig or the compiler is not installed, or fails.
    """
    folder = machine.folder / f"libraries-{'.'.join(map(str, C_LIBRARY))}"
    if not folder.exists():
        machine.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=machine.folder) as there:
            made = Path(there, "libraries")
            made.mkdir()
            _c_library(machine, Path(there), made)
            _cxx_library(machine, Path(there), made)
            made.rename(folder)
    return folder


def _c_library(machine: Machine, scratch: Path, made: Path) -> None:
    """Zig makes the libraries whenever it links; they are taken out of its cache."""
    if importlib.util.find_spec("ziglang") is None:
        raise ExecutionError("ziglang is not installed; wheels need it: pip install --group wheels")
    source, cache = scratch / "empty.c", scratch / "zig"
    source.write_text("int profl_empty;\n")
    release = ".".join(map(str, C_LIBRARY))
    target = ["-target", f"{machine.name}-linux-gnu.{release}", "-O2"]
    command = [sys.executable, "-m", "ziglang", "cc", *target, "-shared", str(source), "-o", str(scratch / "empty.so")]
    _run(command, {"ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache)})
    shared = next(iter(cache.rglob("libc.so.6")), None)
    static = next(iter(cache.rglob("libc_nonshared.a")), None)
    if shared is None or static is None:
        raise ExecutionError("zig's cache holds no libc.so.6; this release of ziglang works otherwise")
    for library in [*shared.parent.glob("lib*.so.*"), static]:
        shutil.copy(library, made)
    for name, script in _SCRIPTS.items():
        (made / name).write_text(script)


def _cxx_library(machine: Machine, scratch: Path, made: Path) -> None:
    if shutil.which(machine.compiler) is None:
        raise ExecutionError(f"{machine.compiler} is not installed: apt-get install {machine.package}")
    own = _run([machine.compiler, "-print-file-name=libstdc++.so"]).strip()
    names = _old_names(_run(["readelf", "--dyn-syms", "-W", own]))
    assembly, versions = scratch / "names.s", scratch / "versions.map"
    assembly.write_text("".join(_defined(index, *name) for index, name in enumerate(names)))
    versions.write_text("".join(f"{version} {{ }};\n" for version in sorted({version for _, _, version in names})))
    flags = ["-shared", "-nostdlib", "-Wl,-soname,libstdc++.so.6", f"-Wl,--version-script={versions}"]
    _run([machine.compiler, *flags, str(assembly), "-o", str(made / "libstdc++.so.6")])
    (made / "libstdc++.so").write_text(_CXX)


def _old_names(table: str) -> list[tuple[str, str, str]]:
    """Type, name and version of the symbols in readelf's table: the newest of each name that is old enough."""
    newest: dict[str, tuple[tuple[int, ...], str, str]] = {}
    for kind, name, library, digits in _SYMBOL.findall(table):
        version = tuple(map(int, digits.split(".")))
        if version <= CXX_LIBRARY.get(library, ()) and version > newest.get(name, ((), "", ""))[0]:
            newest[name] = (version, kind, f"{library}_{digits}")
    return [(kind, name, version) for name, (_, kind, version) in newest.items()]


def _defined(index: int, kind: str, name: str, version: str) -> str:
    flags = ',"awT",@nobits' if kind == "TLS" else ""
    label = f"profl_name_{index}"
    head = f".section {_SECTION[kind]}{flags}\n.globl {label}\n.type {label}, %{_TYPE[kind]}\n"
    return f"{head}{label}:\n.zero 8\n.size {label}, 8\n.symver {label}, {name}@@@{version}\n"


def _run(command: list[str], variables: dict[str, str] | None = None) -> str:
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ExecutionError(f"{' '.join(command[:4])} failed: {reason}")
    return done.stdout
