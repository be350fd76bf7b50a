# Where ExecuTorch is: sets EXECUTORCH_ROOT and PROFL_EXECUTORCH_LIBRARY.
if(PROFL_PYTHON_MODULES)
  find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development.Module)
else()
  find_package(Python 3.11 REQUIRED COMPONENTS Interpreter)
endif()

# ExecuTorch's headers and runtime come from its wheel in the active environment. The library is linked by file and
# not through its imported target, which would bake the absolute path of this machine into the runtime path.
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c
          "import importlib.util as u; s = u.find_spec('executorch'); print(s.submodule_search_locations[0] if s else '')"
  OUTPUT_VARIABLE EXECUTORCH_ROOT
  OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT EXISTS "${EXECUTORCH_ROOT}/lib/libexecutorch.so")
  message(FATAL_ERROR "ExecuTorch is not installed beside ${Python_EXECUTABLE}: "
                      "pip install --no-deps executorch==1.5.1, then build with --no-build-isolation")
endif()
if(NOT PROFL_EXECUTORCH_LIBRARY)
  if(CMAKE_CROSSCOMPILING)
    message(FATAL_ERROR "A build for another machine needs its ExecuTorch: set PROFL_EXECUTORCH_LIBRARY to the "
                        "libexecutorch.so of that machine's wheel, as tools/aarch64 does")
  endif()
  set(PROFL_EXECUTORCH_LIBRARY "${EXECUTORCH_ROOT}/lib/libexecutorch.so")
endif()
