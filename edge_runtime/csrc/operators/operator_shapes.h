// Checks of the table of operators that have a name, because their tensors may have any number of dimensions.
// device_profiles/operator_shapes.py has the same.
#pragma once

#include <cstddef>

#include "operators/operator_row.h"

namespace profl {

// The dimensions of `from` are, from the last, those of `to` or one. Nothing broadcasts to anything.
bool broadcasts(const Argument& from, const Argument& to);

// Dimension d of y is dimension dimensions[d] of x, each of which is taken once.
bool permutes(const Argument& x, const Argument& dimensions, const Argument& y);

// The parts are as large as y in every dimension but one, in which they add up to it.
bool concatenates(const Argument& dimension, const Argument* const* parts, size_t count, const Argument& y);

// The elements of `dense` lie in `viewed` at `offset` and multiples of the strides.
bool strided(const Argument& dense, const Argument& strides, const Argument& offset, const Argument& viewed);

// The code is an expression in postfix order of the operands that are there.
bool is_expression(const Argument& code, const Argument& a, const Argument& b, const Argument& c);

}  // namespace profl
