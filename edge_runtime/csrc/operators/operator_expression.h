// Reading the expressions of a row.
#pragma once

#include <string_view>

#include "operators/operator_row.h"

namespace profl {

// The index of a symbol, which the row gets if it does not have it.
int32_t symbol_of(std::string_view name, OperatorRow& row);

// The index of a parameter.
int32_t parameter_of(std::string_view name, const OperatorRow& row);

// Sums of products of numbers, symbols, functions and what stands in parentheses.
Expression read_expression(std::string_view text, OperatorRow& row);

}  // namespace profl
