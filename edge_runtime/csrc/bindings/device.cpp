// Thin binding of what the training process needs beside the engine.
#include "bindings/device.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>

#include "device/examples.h"
#include "device/features.h"
#include "device/process.h"
#include "threads/thread_pool.h"

namespace nb = nanobind;

namespace {

using Batch = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Indices = std::vector<int64_t>;
using Extents = std::tuple<int, int, int>;

profl::ImageRecords::Shape shape_of(const Extents& extents) {
  const auto [channels, height, width] = extents;
  if (channels < 1 || height < 1 || width < 1) throw nb::value_error("an image has at least one pixel");
  return {channels, height, width};
}

void check_room(const Batch& out, size_t examples, size_t values) {
  if (out.size() < examples * values) throw nb::value_error("the batch is too small for the examples");
}

struct Images {
  profl::ImageRecords records;
  size_t values;

  Images(const Extents& raw, const Extents& input) : records(shape_of(raw), shape_of(input)) {
    const auto [channels, height, width] = input;
    const auto [raw_channels, raw_height, raw_width] = raw;
    if (raw_height > height || raw_width > width || (raw_channels != 1 && raw_channels != channels)) {
      throw nb::value_error("the images do not fit the input");
    }
    values = static_cast<size_t>(channels) * height * width;
  }
};

struct Order {
  std::vector<uint32_t> examples;
};

}  // namespace

void bind_device(nb::module_& module) {
  nb::class_<Order>(module, "Order", "The order of the examples of one epoch.")
      .def(
          "__init__",
          [](Order* self, uint64_t start, uint32_t count) { new (self) Order{profl::hashed_order(start, count)}; },
          nb::arg("start"), nb::arg("count"))
      .def(
          "batch",
          [](const Order& self, size_t first, size_t count) {
            if (first + count > self.examples.size()) throw nb::index_error("beyond the epoch");
            return Indices(self.examples.begin() + first, self.examples.begin() + first + count);
          },
          nb::arg("first"), nb::arg("count"), "Examples at [first, first + count) of the order.");
  nb::class_<Images>(module, "Images", "Images of one size, at known places of open files.")
      .def(nb::init<const Extents&, const Extents&>(), nb::arg("raw"), nb::arg("input"))
      .def(
          "add",
          [](Images& self, int file, int64_t first, int64_t stride, int64_t count) {
            self.records.add(file, first, stride, count);
          },
          nb::arg("file"), nb::arg("first"), nb::arg("stride"), nb::arg("count"))
      .def(
          "add_at",
          [](Images& self, int file, const nb::bytes& offsets) {
            const auto* begin = static_cast<const int64_t*>(offsets.data());
            self.records.add(file, Indices(begin, begin + offsets.size() / sizeof(int64_t)));
          },
          nb::arg("file"), nb::arg("offsets"), "Append images at these offsets, int64 of this machine.")
      .def(
          "fetch",
          [](Images& self, const Indices& indices, const Batch& out) {
            check_room(out, indices.size(), self.values);
            return self.records.fetch(indices, out.data());
          },
          nb::arg("indices"), nb::arg("out"),
          "Fill `out` with scaled images; returns the first image its file does not hold whole, or -1.")
      .def(
          "fetch_augmented",
          [](Images& self, const Indices& indices, const Batch& out, uint64_t start) {
            check_room(out, indices.size(), self.values);
            return self.records.fetch_augmented(indices, start, out.data());
          },
          nb::arg("indices"), nb::arg("out"), nb::arg("start"),
          "The same with every image cropped and turned at random, as follows from `start` and its number.");
  nb::class_<profl::FeatureRows>(module, "FeatureRows", "How features lie in the rows of a file.")
      .def(
          "__init__",
          [](profl::FeatureRows* self, const std::string& type, size_t channels, size_t values) {
            new (self) profl::FeatureRows{profl::feature_type(type), channels, values};
          },
          nb::arg("type"), nb::arg("channels"), nb::arg("values"))
      .def_prop_ro("row_bytes", &profl::FeatureRows::row_bytes)
      .def(
          "write",
          [](const profl::FeatureRows& self, int file, int64_t offset, const Batch& features, size_t count) {
            check_room(features, count, self.channels * self.values);
            return self.write(file, offset, features.data(), count);
          },
          nb::arg("file"), nb::arg("offset"), nb::arg("features"), nb::arg("count"),
          "Write the first `count` examples as rows from `offset` on; returns 0 or the error's number.")
      .def(
          "read",
          [](const profl::FeatureRows& self, int file, int64_t offset, const Indices& indices, const Batch& out) {
            check_room(out, indices.size(), self.channels * self.values);
            return self.read(file, offset, indices, out.data());
          },
          nb::arg("file"), nb::arg("offset"), nb::arg("indices"), nb::arg("out"),
          "Fill `out` with rows; returns the first row the file does not hold whole, or -1.");
  module.def(
      "fill_evenly", [](const Batch& out) { profl::fill_evenly(out.data(), out.size()); }, nb::arg("out"),
      "Fill with even values in [-1, 1).");
  module.def(
      "is_finite", [](const Batch& values) { return profl::is_finite(values.data(), values.size()); },
      nb::arg("values"), "Whether no value is infinite or no number.");
  module.def("resident_bytes", [] { return profl::resident_bytes().now; }, "VmRSS of this process.");
  module.def("peak_resident_bytes", [] { return profl::resident_bytes().peak; }, "VmHWM of this process.");
  module.def("settle_allocator", &profl::settle_allocator);
  module.def(
      "release_unused_pages",
      [] {
        profl::release_workspace();
        profl::release_unused_pages();
      },
      "Give back what is not in use: libraries' code, freed memory, tile buffers.");
  module.def("load_kernels", &profl::load_kernels);
  module.def("note_stop_signals", &profl::note_stop_signals);
  module.def("noted_signal", &profl::noted_signal);
  module.def("end_on_stop_signals", &profl::end_on_stop_signals);
  module.def("end_with_parent", &profl::end_with_parent, nb::arg("parent"), nb::arg("signal"));
}
