#include "operators/operator_shapes.h"

#include "operators/postfix.h"

namespace profl {

bool broadcasts(const Argument& from, const Argument& to) {
  if (from.kind == Argument::Kind::none) return true;
  if (from.items.size() > to.items.size()) return false;
  const size_t before = to.items.size() - from.items.size();
  for (size_t d = 0; d < from.items.size(); ++d) {
    if (from.items[d] != 1 && from.items[d] != to.items[before + d]) return false;
  }
  return true;
}

bool permutes(const Argument& x, const Argument& dimensions, const Argument& y) {
  const size_t rank = x.items.size();
  if (dimensions.items.size() != rank || y.items.size() != rank) return false;
  unsigned seen = 0;
  for (size_t d = 0; d < rank; ++d) {
    const size_t from = static_cast<size_t>(dimensions.items[d]);
    if (from >= rank || (seen >> from & 1u) != 0 || y.items[d] != x.items[from]) return false;
    seen |= 1u << from;
  }
  return true;
}

constexpr size_t kNoted = 320;  // device_profiles/operator_shapes.py

bool concatenates(const Argument& dimension, const Argument* const* parts, size_t count, const Argument& y) {
  const size_t along = static_cast<size_t>(dimension.integer);
  // ExecuTorch writes a note of every tensor of a call, and of its dimensions, into a room of a fixed size.
  if (along >= y.items.size() || (count + 1) * (y.items.size() + 1) > kNoted) return false;
  int64_t total = 0;
  for (size_t part = 0; part < count; ++part) {
    const std::vector<int64_t>& sizes = parts[part]->items;
    if (sizes.size() != y.items.size()) return false;
    for (size_t d = 0; d < sizes.size(); ++d) {
      if (d != along && sizes[d] != y.items[d]) return false;
    }
    total += sizes[along];
  }
  return total == y.items[along];
}

bool strided(const Argument& dense, const Argument& strides, const Argument& offset, const Argument& viewed) {
  if (strides.items.size() != dense.items.size()) return false;
  __int128 last = offset.integer;
  for (size_t d = 0; d < dense.items.size(); ++d) last += __int128{dense.items[d] - 1} * strides.items[d];
  return last < viewed.elements;
}

bool is_expression(const Argument& code, const Argument& a, const Argument& b, const Argument& c) {
  const Argument* const operands[kPostfixOperands] = {&a, &b, &c};
  if (code.items.empty() || code.items.size() > kPostfixLength) return false;
  int depth = 0;
  for (const int64_t word : code.items) {
    const Postfix what = postfix_of(word);
    const int64_t place = postfix_place(word);
    if (static_cast<int64_t>(what) >= kPostfixCount || depth < postfix_operands(what)) return false;
    if (what == Postfix::operand && (place >= kPostfixOperands || operands[place]->kind != Argument::Kind::tensor)) {
      return false;
    }
    if (what > Postfix::number && place != 0) return false;
    depth += 1 - postfix_operands(what);
    if (depth > kPostfixDepth) return false;
  }
  return depth == 1;
}

}  // namespace profl
