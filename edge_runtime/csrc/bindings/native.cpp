// Thin binding of the engine: numpy arrays in and out, nothing copied.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include <algorithm>

#include "bindings/device.h"
#include "engine/program.h"
#include "kernels/tiles/gemm_tile.h"
#include "threads/thread_pool.h"

namespace nb = nanobind;

namespace {

using Array = nb::ndarray<nb::numpy>;
using profl::ScalarType;

// A bfloat16 is shown as the 16 bits it is: numpy has no such type.
nb::dlpack::dtype dtype_of(ScalarType type) {
  if (type == ScalarType::BFloat16) return nb::dtype<uint16_t>();
  return type == ScalarType::Long ? nb::dtype<int64_t>() : nb::dtype<float>();
}

const char* name_of(ScalarType type) {
  if (type == ScalarType::BFloat16) return "bfloat16";
  return type == ScalarType::Long ? "int64" : "float32";
}

// A `memoryview` for processes that do without numpy, or an array.
using View = nb::ndarray<nb::memview>;

template <class Kind = Array>
Kind view(const profl::Tensor& tensor, nb::handle owner) {
  std::vector<size_t> shape(tensor.sizes().begin(), tensor.sizes().end());
  return Kind(tensor.mutable_data_ptr(), shape.size(), shape.data(), owner, nullptr, dtype_of(tensor.scalar_type()));
}

// Holds the arrays its inputs point at.
struct BoundProgram {
  profl::Program program;
  std::vector<nb::object> kept;
  std::vector<bool> placed;

  BoundProgram(const std::string& path, int threads, size_t prefix_instructions)
      : program(path, threads, prefix_instructions), kept(program.input_count()), placed(program.input_count()) {}

  void set_input(size_t index, nb::ndarray<nb::ro, nb::device::cpu> array) {
    if (index >= kept.size()) throw nb::index_error("the program has no such input");
    const auto info = program.input_info(index);
    bool fits = array.ndim() == info.sizes().size() && array.dtype() == dtype_of(info.scalar_type());
    int64_t stride = 1;
    for (size_t d = array.ndim(); fits && d-- > 0; stride *= info.sizes()[d]) {
      const bool dense = array.shape(d) <= 1 || array.stride(d) == stride;
      fits = dense && array.shape(d) == static_cast<size_t>(info.sizes()[d]);
    }
    if (!fits) {
      std::string shape;
      for (int32_t size : info.sizes()) shape += (shape.empty() ? "" : "x") + std::to_string(size);
      throw nb::value_error(("input " + std::to_string(index) + " takes a contiguous " + name_of(info.scalar_type()) +
                             " array of shape [" + shape + "]")
                                .c_str());
    }
    program.set_input(index, array.data());
    kept[index] = nb::cast(array);
    placed[index] = false;
  }

  void place_input(size_t index, size_t arena_offset) {
    if (index >= kept.size()) throw nb::index_error("the program has no such input");
    try {
      program.place_input(index, arena_offset);
    } catch (const std::out_of_range& error) {
      throw nb::value_error(error.what());
    }
    kept[index] = nb::none();
    placed[index] = true;
  }

  void read_before(size_t index, const std::vector<size_t>& instructions, int file, int64_t offset) {
    if (index >= placed.size() || !placed[index]) throw nb::index_error("the input is not placed in the arena");
    for (size_t instruction : instructions) program.read_before(index, instruction, file, offset);
  }

  std::pair<double, double> execute() {
    nb::gil_scoped_release release;
    const profl::Seconds seconds = program.execute();
    return {seconds.total, seconds.prefix};
  }
};

}  // namespace

NB_MODULE(_native, module) {
  module.doc() = "One training step as an ExecuTorch program, run in its own arena.";
  nb::exception<profl::ProgramError>(module, "ProgramError", PyExc_RuntimeError);
  nb::class_<BoundProgram>(module, "Program", "A loaded program with its arena; see the manifest for its tensors.")
      .def(nb::init<const std::string&, int, size_t>(), nb::arg("path"), nb::arg("threads"),
           nb::arg("prefix_instructions") = 0)
      .def("set_input", &BoundProgram::set_input, nb::arg("index"), nb::arg("array"),
           "Point an input at an array, without a copy; the array is kept alive.")
      .def("place_input", &BoundProgram::place_input, nb::arg("index"), nb::arg("arena_offset"),
           "Point an input into the arena.")
      .def("read_before", &BoundProgram::read_before, nb::arg("index"), nb::arg("instructions"), nb::arg("file"),
           nb::arg("offset"), "Read an input that is placed in the arena from an open file before these instructions.")
      .def("execute", &BoundProgram::execute, "Run one step; returns its seconds and those of the frozen prefix.")
      .def(
          "output",
          [](nb::handle self, size_t index) {
            auto& bound = nb::cast<BoundProgram&>(self);
            if (index >= bound.program.output_count()) throw nb::index_error("the program has no such output");
            return view(bound.program.output(index), self);
          },
          nb::arg("index"), "View of an output, valid until the next step.")
      .def(
          "output_view",
          [](nb::handle self, size_t index) {
            auto& bound = nb::cast<BoundProgram&>(self);
            if (index >= bound.program.output_count()) throw nb::index_error("the program has no such output");
            return view<View>(bound.program.output(index), self);
          },
          nb::arg("index"), "As `output`, without numpy.")
      .def(
          "buffer_view",
          [](nb::handle self, const std::string& name) {
            try {
              return view<View>(nb::cast<BoundProgram&>(self).program.buffer(name), self);
            } catch (const std::out_of_range&) {
              throw nb::key_error(name.c_str());
            }
          },
          nb::arg("name"), "As `buffer`, without numpy.")
      .def("buffer_names", [](BoundProgram& self) { return self.program.buffer_names(); })
      .def(
          "buffer",
          [](nb::handle self, const std::string& name) {
            try {
              return view(nb::cast<BoundProgram&>(self).program.buffer(name), self);
            } catch (const std::out_of_range&) {
              throw nb::key_error(name.c_str());
            }
          },
          nb::arg("name"), "Writable view of a mutable buffer.")
      .def_prop_ro("input_count", [](BoundProgram& self) { return self.program.input_count(); })
      .def_prop_ro("output_count", [](BoundProgram& self) { return self.program.output_count(); })
      .def_prop_ro("arena_bytes", [](BoundProgram& self) { return self.program.arena_bytes(); })
      .def_prop_ro("instruction_count", [](BoundProgram& self) { return self.program.instruction_count(); })
      .def(
          "input_type",
          [](BoundProgram& self, size_t index) {
            if (index >= self.kept.size()) throw nb::index_error("the program has no such input");
            return name_of(self.program.input_info(index).scalar_type());
          },
          nb::arg("index"), "The type of an input's elements.")
      .def(
          "input_shape",
          [](BoundProgram& self, size_t index) {
            if (index >= self.kept.size()) throw nb::index_error("the program has no such input");
            const auto info = self.program.input_info(index);
            return std::vector<int64_t>(info.sizes().begin(), info.sizes().end());
          },
          nb::arg("index"), "The sizes of an input.")
      .def(
          "input_uses",
          [](BoundProgram& self, size_t index) {
            if (index >= self.kept.size()) throw nb::index_error("the program has no such input");
            return self.program.input_uses(index);
          },
          nb::arg("index"), "The instructions that take an input.")
      .def_prop_ro("workspace_bytes",
                   [](BoundProgram&) { return profl::kWorkspaceBytesPerThread * profl::thread_count(); });
  bind_device(module);
  module.def("workspace_bytes_per_thread", [] { return profl::kWorkspaceBytesPerThread; });
  module.def("instruction_set", [] { return std::string(profl::tile_kernels().name); });
}
