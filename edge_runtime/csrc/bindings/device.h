// Adds what the training process needs beside the engine to the module.
#pragma once

#include <nanobind/nanobind.h>

void bind_device(nanobind::module_& module);
