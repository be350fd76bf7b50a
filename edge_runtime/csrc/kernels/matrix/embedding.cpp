// Tokens: rows of a table by their numbers, the table's gradient, and the numbers themselves.
#include <algorithm>
#include <cmath>

#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"

namespace profl {
namespace {

PROFL_CLONES void add_row(const float* row, int64_t width, float* to) {
  for (int64_t i = 0; i < width; ++i) to[i] += row[i];
}

constexpr float kLargest = 9.0e18f;  // of what becomes an int64

bool inside(int64_t token, int64_t rows) { return token >= 0 && token < rows; }

}  // namespace

void embedding(Context& context, Stack stack) {
  const Arguments a(stack);
  const int64_t width = a.size(1, 1), rows = a.size(1, 0), count = a.elements(0);
  const int64_t* tokens = a.tensor(0).const_data_ptr<int64_t>();
  if (!std::all_of(tokens, tokens + count, [rows](int64_t token) { return inside(token, rows); })) {
    context.fail(Error::InvalidArgument);
    return;
  }
  row_pieces(count, width, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      // Asked again: a program from a stranger may have let the rows overwrite the tokens.
      const int64_t token = tokens[i];
      if (inside(token, rows)) std::copy_n(a.read(1) + token * width, width, a.write(2) + i * width);
    }
  });
}

// Whole numbers as floats, which hold all of them up to 2^24.
void to_float(Context&, Stack stack) {
  const Arguments a(stack);
  const int64_t* tokens = a.tensor(0).const_data_ptr<int64_t>();
  pieces(a.elements(0), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) a.write(1)[i] = static_cast<float>(tokens[i]);
  });
}

// Floats as whole numbers, without what lies behind the point; -1, which is in no table, for what is no int64.
void to_whole(Context&, Stack stack) {
  const Arguments a(stack);
  int64_t* y = a.tensor(1).mutable_data_ptr<int64_t>();
  pieces(a.elements(0), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const float x = a.read(0)[i];
      y[i] = std::abs(x) < kLargest ? static_cast<int64_t>(x) : -1;
    }
  });
}

// Every task owns a range of the table's rows and adds to them in the order of the tokens: no two write one row, and
// the sum does not depend on how many threads there are.
void embedding_weight_grad(Context&, Stack stack) {
  const Arguments a(stack);
  const int64_t width = a.size(3, 1), rows = a.size(3, 0), count = a.elements(1), padding = a.integer(2);
  const int64_t* tokens = a.tensor(1).const_data_ptr<int64_t>();
  row_pieces(rows, width, [&](int64_t first, int64_t last) {
    std::fill(a.write(3) + first * width, a.write(3) + last * width, 0.0f);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t token = tokens[i];
      if (token < first || token >= last || token == padding) continue;
      add_row(a.read(0) + i * width, width, a.write(3) + token * width);
    }
  });
}

}  // namespace profl
