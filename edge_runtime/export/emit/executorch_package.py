"""ExecuTorch's schema and its serializer, without the rest of ExecuTorch.

An import from `executorch.exir` first executes that package, which imports ExecuTorch's compiler, torchao and torch's
inductor: eight seconds of a processor in every export, for nothing that writes a program.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

_PACKAGE = "executorch.exir"


class _Deferred(ModuleType):
    """A package that is executed when a name is first looked up in it. Its modules can be imported before that."""

    def __getattr__(self, name: str) -> object:
        # Whoever walks through `sys.modules` asks every module for names like `__warningregistry__`.
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        object.__setattr__(self, "__class__", ModuleType)
        assert self.__spec__ is not None and self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _defer(name: str) -> None:
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None:  # it was executed already, or it is not installed, as the import below will say
        return
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _Deferred
    sys.modules[name] = package
    parent, _, own_name = name.rpartition(".")
    setattr(sys.modules[parent], own_name, package)


_defer(_PACKAGE)

# Behind the call that makes them light. `from executorch.exir import schema` would look a name up in the package.
import executorch.exir.schema as schema  # noqa: E402
from executorch.exir._serialize._program import PTEFile, serialize_pte_binary  # noqa: E402
from executorch.exir.scalar_type import ScalarType  # noqa: E402

__all__ = ["PTEFile", "ScalarType", "schema", "serialize_pte_binary"]
