// Replies and requests are written where they will be sent from: each function reserves once for
// the worst case and formats in place. Lengths go through std::to_chars, which writes two digits a
// step without locale or termination; a generic printf-like writer would parse its format for every
// reply. The headers of short bulk strings are copied from a table instead: most hits need one.
#include "nearcached/resp/writer.h"

#include <array>
#include <charconv>
#include <cstring>

#include "resp/lines.h"

namespace nearcached::resp {
namespace {

constexpr size_t kHeaderBytesMax = 1 + 20 + 2;  // type, "-9223372036854775808", CRLF

struct BulkHeader {
  char text[7];  // up to "$1023\r\n"
  uint8_t size;
};
static_assert(sizeof(BulkHeader) == 8);

constexpr std::array<BulkHeader, 1024> make_bulk_headers() {
  std::array<BulkHeader, 1024> headers{};
  for (unsigned n = 0; n < headers.size(); ++n) {
    BulkHeader& header = headers[n];
    char* p = header.text;
    *p++ = '$';
    for (unsigned unit = n >= 1000 ? 1000 : n >= 100 ? 100 : n >= 10 ? 10 : 1; unit > 0; unit /= 10)
      *p++ = static_cast<char>('0' + n / unit % 10);
    *p++ = '\r';
    *p++ = '\n';
    header.size = static_cast<uint8_t>(p - header.text);
  }
  return headers;
}
constexpr std::array<BulkHeader, 1024> kBulkHeaders = make_bulk_headers();

char* put(char* p, Bytes bytes) {
  if (!bytes.empty()) std::memcpy(p, bytes.data(), bytes.size());  // memcpy forbids a null source
  return p + bytes.size();
}

char* put_crlf(char* p) {
  p[0] = '\r';
  p[1] = '\n';
  return p + 2;
}

template <typename Integer>
char* put_header(char* p, char type, Integer n) {
  *p++ = type;
  return put_crlf(std::to_chars(p, p + 20, n).ptr);
}

// A short header is copied in one piece; what that writes behind it, the payload overwrites.
char* put_bulk_header(char* p, size_t n) {
  if (n >= kBulkHeaders.size()) return put_header(p, '$', n);
  const BulkHeader& header = kBulkHeaders[n];
  std::memcpy(p, &header, sizeof(header));
  return p + header.size;
}

char* put_bulk(char* p, Bytes bytes) {
  return put_crlf(put(put_bulk_header(p, bytes.size()), bytes));
}

void commit(Buffer& out, const char* begin, const char* end) {
  out.commit(static_cast<size_t>(end - begin));
}

template <typename Integer>
void write_header(Buffer& out, char type, Integer n) {
  char* const begin = out.reserve(kHeaderBytesMax);
  commit(out, begin, put_header(begin, type, n));
}

template <typename Args>
void write_args(Buffer& out, const Args& args) {
  size_t bytes_max = kHeaderBytesMax;
  for (const Bytes arg : args) bytes_max += kHeaderBytesMax + arg.size() + 2;
  char* const begin = out.reserve(bytes_max);
  char* p = put_header(begin, '*', args.size());
  for (const Bytes arg : args) p = put_bulk(p, arg);
  commit(out, begin, p);
}

}  // namespace

void write_simple(Buffer& out, Bytes text) {
  char* const begin = out.reserve(text.size() + 3);
  *begin = '+';
  commit(out, begin, put_crlf(put(begin + 1, text)));
}

void write_error(Buffer& out, Bytes text) {
  char* const begin = out.reserve(text.size() + 3);
  *begin = '-';
  char* p = begin + 1;
  for (const char c : text) *p++ = c == '\r' || c == '\n' ? ' ' : c;
  commit(out, begin, put_crlf(p));
}

void write_integer(Buffer& out, int64_t n) { write_header(out, ':', n); }

void write_bulk(Buffer& out, Bytes bytes) {
  char* const begin = out.reserve(kHeaderBytesMax + bytes.size() + 2);
  commit(out, begin, put_bulk(begin, bytes));
}

bool read_bulk(Bytes written, Bytes& payload) {
  if (written.empty() || written[0] != '$') return false;
  const char* const end = written.data() + written.size();
  uint64_t n = 0;
  const char* const begin = read_length(written.data() + 1, end, n);
  if (begin == nullptr || static_cast<uint64_t>(end - begin) != n + 2) return false;
  if (end[-2] != '\r' || end[-1] != '\n') return false;
  payload = {begin, n};
  return true;
}

void write_null(Buffer& out, int resp) {
  out.append(resp >= 3 ? Bytes("_\r\n") : Bytes("$-1\r\n"));
}

void write_array(Buffer& out, uint64_t n) { write_header(out, '*', n); }

void write_map(Buffer& out, uint64_t pairs, int resp) {
  if (resp >= 3) write_header(out, '%', pairs);
  else write_header(out, '*', 2 * pairs);
}

void write_verbatim(Buffer& out, Bytes text, int resp) {
  if (resp < 3) return write_bulk(out, text);
  constexpr Bytes kFormat = "txt:";
  char* const begin = out.reserve(kHeaderBytesMax + kFormat.size() + text.size() + 2);
  char* const p = put(put_header(begin, '=', kFormat.size() + text.size()), kFormat);
  commit(out, begin, put_crlf(put(p, text)));
}

void write_request(Buffer& out, std::span<const Bytes> args) { write_args(out, args); }
void write_request(Buffer& out, std::initializer_list<Bytes> args) { write_args(out, args); }

}  // namespace nearcached::resp
