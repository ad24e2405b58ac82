// Bytes: a non-owning view of raw bytes. Keys and values are binary: never assume text or a NUL.
#pragma once
#include <cstdint>
#include <cstring>
#include <string_view>

namespace nearcached {

using Bytes = std::string_view;

/// ASCII case-insensitive equality, as Redis compares command and option names.
/// `upper` must already be in upper case.
inline bool equals_upper(Bytes text, Bytes upper) {
  if (text.size() != upper.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
    if (c != upper[i]) return false;
  }
  return true;
}

/// As equals_upper, against a text that is in lower case.
inline bool equals_lower(Bytes text, Bytes lower) {
  if (text.size() != lower.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    if (c != lower[i]) return false;
  }
  return true;
}

}  // namespace nearcached
