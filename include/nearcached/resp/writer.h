// Writing RESP into a Buffer: small, allocation-free helpers shared by every module that answers.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <span>

#include "nearcached/base/buffer.h"
#include "nearcached/base/bytes.h"

namespace nearcached::resp {

void write_simple(Buffer& out, Bytes text);  ///< +text
void write_error(Buffer& out, Bytes text);   ///< -text ("ERR …"); CR and LF in it become spaces
void write_integer(Buffer& out, int64_t n);  ///< :n
void write_bulk(Buffer& out, Bytes bytes);   ///< $n
void write_null(Buffer& out, int resp);      ///< $-1 or _
void write_array(Buffer& out, uint64_t n);   ///< *n
void write_map(Buffer& out, uint64_t pairs, int resp);   ///< %n, or *2n in RESP2
void write_verbatim(Buffer& out, Bytes text, int resp);  ///< =n txt:, or $n in RESP2
/// A request as a RESP array of bulk strings.
void write_request(Buffer& out, std::span<const Bytes> args);
void write_request(Buffer& out, std::initializer_list<Bytes> args);

/// True if `written` is byte for byte what write_bulk() writes of `payload`, which becomes a view
/// into it. A length of more than eight digits is not read.
bool read_bulk(Bytes written, Bytes& payload);

}  // namespace nearcached::resp
