#include "kernels/convolution/depthwise/depthwise.h"

#include <algorithm>

#include "kernels/tiles/gemm_tile.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

// One direction: which of the `step` phases of the input the taps read, and how many positions further.
struct Phases {
  int64_t lowest, count = 0, reach = 0;
  int64_t phase[kMaxTaps], offset[kMaxTaps];  // of each tap
  int64_t residue[kMaxTaps];                  // of each phase: it holds positions lowest + residue + i * step

  explicit Phases(const Taps& taps) : lowest(taps.lowest()) {
    for (int64_t t = 0; t < taps.count; ++t) {
      const int64_t from = taps.shift[t] - lowest, own = from % taps.step;
      const int64_t* known = std::find(residue, residue + count, own);
      phase[t] = known - residue;
      if (phase[t] == count) residue[count++] = own;
      offset[t] = from / taps.step;
      reach = std::max(reach, offset[t]);
    }
  }
};

// The input plane of a piece, as [vertical phase][horizontal phase][image][line][position]: every tap of every output
// of the piece is then one run, `offsets[tap]` floats behind the begin, in which the outputs lie as
// [image][line][position], with `gap` positions behind the columns of each line that are no outputs.
class Plane {
 public:
  Plane(const Source& source, const Piece& piece, int64_t lanes)
      : source_(source), piece_(piece), vertical_(source.vertical), horizontal_(source.horizontal) {
    pitch_ = piece.columns + horizontal_.reach;
    lines_ = piece.rows + vertical_.reach;
    // Behind the last output of the last image nothing is needed.
    run_ = round_up((piece.images - 1) * lines_ * pitch_ + (piece.rows - 1) * pitch_ + piece.columns, lanes);
  }
  int64_t run() const { return run_; }
  int64_t place(int64_t image, int64_t row) const { return (image * lines_ + row) * pitch_; }
  int64_t phase_floats() const { return piece_.images * lines_ * pitch_; }
  // Runs of the last taps end up to a vector behind the last line.
  int64_t floats() const { return phases() * phase_floats() + run_ + vertical_.reach * pitch_ + horizontal_.reach; }

  void offsets(int32_t* to) const {
    for (int64_t v = 0; v < source_.vertical.count; ++v) {
      for (int64_t h = 0; h < source_.horizontal.count; ++h) {
        const int64_t phase = vertical_.phase[v] * horizontal_.count + horizontal_.phase[h];
        *to++ = static_cast<int32_t>(phase * phase_floats() + vertical_.offset[v] * pitch_ + horizontal_.offset[h]);
      }
    }
  }

  void fill(int64_t channel, float* to) const {
    const int64_t plane = source_.height * source_.width;
    for (int64_t v = 0; v < vertical_.count; ++v) {
      for (int64_t h = 0; h < horizontal_.count; ++h) {
        for (int64_t n = 0; n < piece_.images; ++n) {
          const float* from = source_.in + ((piece_.image + n) * source_.channels_total + channel) * plane;
          for (int64_t line = 0; line < lines_; ++line, to += pitch_) {
            const int64_t row = (piece_.row + line) * source_.vertical.step + vertical_.lowest + vertical_.residue[v];
            const bool inside = row >= 0 && row < source_.height;
            fill_line(inside ? from + row * source_.width : nullptr, horizontal_.residue[h], to);
          }
        }
      }
    }
    std::fill_n(to, floats() - phases() * phase_floats(), 0.0f);
  }

 private:
  int64_t phases() const { return vertical_.count * horizontal_.count; }

  void fill_line(const float* row, int64_t residue, float* to) const {
    const int64_t step = source_.horizontal.step, begin = piece_.column * step + horizontal_.lowest + residue;
    if (row == nullptr) {
      std::fill_n(to, pitch_, 0.0f);
      return;
    }
    const int64_t low = std::clamp<int64_t>(begin >= 0 ? 0 : ceil_div(-begin, step), 0, pitch_);
    const int64_t high =
        std::clamp<int64_t>(begin >= source_.width ? 0 : ceil_div(source_.width - begin, step), low, pitch_);
    std::fill_n(to, low, 0.0f);
    if (step == 1) {
      std::copy_n(row + begin + low, high - low, to + low);
    } else {
      for (int64_t j = low; j < high; ++j) to[j] = row[begin + j * step];
    }
    std::fill_n(to + high, pitch_ - high, 0.0f);
  }

  const Source& source_;
  const Piece& piece_;
  const Phases vertical_, horizontal_;
  int64_t pitch_, lines_, run_;
};

// The most pixels of a piece that fits the workspace together with a run of outputs; 0 if none does.
int64_t fitting_pixels(const Source& source, int64_t lanes) {
  for (int64_t most : {2048, 512, 64}) {
    const Piece largest = Cut(source, most).largest();
    const Plane plane(source, largest, lanes);
    if (plane.floats() + plane.run() <= kWorkspaceFloats) return most;
  }
  return 0;
}

// One gradient plane laid out like the outputs of a piece, zeros between.
void fill_gradient(const Source& source, const Piece& piece, const Plane& plane, const float* gradient,
                   int64_t channels_total, float* to) {
  std::fill_n(to, plane.run(), 0.0f);
  for (int64_t n = 0; n < piece.images; ++n) {
    const float* from = gradient + (piece.image + n) * channels_total * source.grid_h * source.grid_w;
    for (int64_t i = 0; i < piece.rows; ++i) {
      std::copy_n(from + (piece.row + i) * source.grid_w + piece.column, piece.columns, to + plane.place(n, i));
    }
  }
}

}  // namespace

bool solve_depthwise(const Problem& p, int64_t groups) {
  const TileKernels& tiles = tile_kernels();
  const int64_t most = fitting_pixels(p.source, tiles.lanes);
  if (most == 0) return false;
  const Cut cut(p.source, most);
  parallel_for(groups * cut.count(), [&](int64_t task, float* workspace) {
    const int64_t group = task / cut.count(), taps = p.source.taps();
    const Piece piece = cut.piece(task % cut.count());
    const Plane plane(p.source, piece, tiles.lanes);
    float *sums = workspace, *in = workspace + plane.run();
    int32_t offsets[kMaxTaps];
    float weights[kMaxTaps];
    plane.offsets(offsets);
    plane.fill(group, in);
    for (int64_t m = 0; m < p.rows; ++m) {
      const float* kernel = p.weight + group * p.group_stride + m * p.row_stride;
      float* weight = weights;
      for (int64_t v = 0; v < p.source.vertical.count; ++v) {
        for (int64_t h = 0; h < p.source.horizontal.count; ++h) {
          *weight++ = kernel[p.source.vertical.index[v] * p.kernel_w + p.source.horizontal.index[h]];
        }
      }
      tiles.weighted(static_cast<int>(taps), weights, offsets, in, plane.run(), sums);
      for (int64_t n = 0; n < piece.images; ++n) {
        for (int64_t i = 0; i < piece.rows; ++i) {
          p.put(sums + plane.place(n, i), group * p.rows + m, piece.image + n, piece.row + i, piece.column,
                piece.columns);
        }
      }
    }
  });
  return true;
}

bool depthwise_weight_gradient(const Source& source, const float* gradient, int64_t groups, int64_t outputs,
                               const GradientSink& sink) {
  const TileKernels& tiles = tile_kernels();
  const int64_t most = fitting_pixels(source, tiles.lanes);
  if (most == 0) return false;
  const Cut cut(source, most);
  const int64_t taps = source.taps(), plane_floats = source.grid_h * source.grid_w;
  parallel_for(groups * outputs, [&](int64_t channel, float* workspace) {
    double sums[kMaxTaps] = {};
    for (int64_t index = 0; index < cut.count(); ++index) {
      const Piece piece = cut.piece(index);
      const Plane plane(source, piece, tiles.lanes);
      float *turned = workspace, *in = workspace + plane.run();
      int32_t offsets[kMaxTaps];
      plane.offsets(offsets);
      plane.fill(channel / outputs, in);
      fill_gradient(source, piece, plane, gradient + channel * plane_floats, groups * outputs, turned);
      for (int64_t t = 0; t < taps; t += kMaxDots) {
        tiles.dots[std::min<int64_t>(kMaxDots, taps - t) - 1](turned, in, offsets + t, plane.run(), sums + t);
      }
    }
    float row[kMaxTaps];
    for (int64_t t = 0; t < taps; ++t) row[t] = static_cast<float>(sums[t]);
    sink.put(row, channel * taps, taps);
  });
  return true;
}

}  // namespace profl
