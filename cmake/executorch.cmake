# Python and ExecuTorch, whose headers and library all but the runner needs.
if(PROFL_PYTHON_MODULES AND NOT PROFL_PYTHON_HEADERS)
  find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development.Module)
else()
  find_package(Python 3.11 REQUIRED COMPONENTS Interpreter)
endif()

# A module of another Python needs its headers and nothing else; nanobind takes them from these targets.
if(PROFL_PYTHON_HEADERS)
  foreach(target Python::Module Python::SABIModule)
    add_library(${target} INTERFACE IMPORTED)
    target_include_directories(${target} SYSTEM INTERFACE ${PROFL_PYTHON_HEADERS})
  endforeach()
  set(Python_INCLUDE_DIRS ${PROFL_PYTHON_HEADERS})
endif()
set(ABI "")
if(PROFL_STABLE_ABI)
  set(Python_VERSION 3.12) # the oldest that loads it, whichever Python builds it
  set(ABI STABLE_ABI)
endif()

# ExecuTorch's headers and runtime come from its wheel in the active environment. The library is linked by file and
# not through its imported target, which would bake the absolute path of this machine into the runtime path.
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c
          "import importlib.util as u; s = u.find_spec('executorch'); print(s.submodule_search_locations[0] if s else '')"
  OUTPUT_VARIABLE EXECUTORCH_ROOT
  OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT EXISTS "${EXECUTORCH_ROOT}/lib/libexecutorch.so")
  message(FATAL_ERROR "ExecuTorch is not installed beside ${Python_EXECUTABLE}, and its headers are needed. Where this is "
                      "installed: pip install --no-deps executorch==1.5.1 scikit-build-core nanobind cmake ninja "
                      "pathspec packaging; then pip install --no-build-isolation, with the same path as now. A device "
                      "needs no build: install a wheel (docs/install.md)")
endif()
if(NOT PROFL_EXECUTORCH_LIBRARY)
  if(CMAKE_CROSSCOMPILING)
    message(FATAL_ERROR "A build for another machine needs its ExecuTorch: set PROFL_EXECUTORCH_LIBRARY to the "
                        "libexecutorch.so of that machine's wheel, as tools/cross does")
  endif()
  set(PROFL_EXECUTORCH_LIBRARY "${EXECUTORCH_ROOT}/lib/libexecutorch.so")
endif()
