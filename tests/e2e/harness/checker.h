// Checker: tools/coherence-checker, run beside what the test does.
#pragma once
#include <string>
#include <vector>

#include "harness/client.h"
#include "harness/process.h"

namespace nearcached::e2e {

class Checker {
 public:
  struct Verdict {
    int status = -1;
    std::string output;
    bool held() const { return status == 0 && output.find("violations 0\n") != std::string::npos; }
  };

  explicit Checker(const std::vector<std::string>& options);
  ~Checker();
  Checker(const Checker&) = delete;
  Checker& operator=(const Checker&) = delete;

  /// Until each of its writers, of which there are `writers`, has written; seen through `client`.
  static void wait_working(Client client, size_t writers);
  /// A line of its --control.
  void tell(const std::string& line) const;
  /// Waits for its end.
  Verdict finish();

 private:
  TempDir dir_;
  Process process_;
  int control_ = -1;
};

}  // namespace nearcached::e2e
