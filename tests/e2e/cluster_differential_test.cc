// Every command of the differential tables, through a proxy before a cluster, against one Redis:
// "to a client it must look like one Redis". What cannot is in differential/cluster.txt, with the
// reason; a row that is not needed any more fails as well.
//
// The tables' keys are in many slots, so commands that need several keys together differ. So all
// is compared twice: as it is, and with every key in the same slot.
#include <catch2/catch.hpp>
#include <string>

#include "differential_comparison.h"
#include "harness/cluster.h"

using namespace nearcached::e2e;

TEST_CASE("before a cluster every command answers what one Redis answers, but for what is listed",
          "[cluster][differential]") {
  RedisCluster::Options options;
  options.replicas = 0;
  options.node_timeout_ms = 30'000;  // PFSELFTEST keeps a node busy for seconds
  RedisCluster cluster(options);
  ExpectedDifferences expected{read_reasons("cluster.txt"), {}, false};
  for (const bool tagged : {false, true}) {
    expected.tagged = tagged;
    REQUIRE(cluster.restore());
    Proxy proxy(cluster.port(0), cluster.upstream());
    Comparison comparison(tagged ? 3 : 2, proxy, &expected);
    for (const std::string& table : table_names()) {
      INFO(table << (tagged ? ", all keys in one slot" : ", keys in many slots"));
      for (const Paragraph& paragraph : read_table(table)) comparison.run(paragraph);
    }
  }
  for (const auto& [row, reason] : expected.reasons) {
    INFO("listed in cluster.txt, but there is no such difference: " << row << ": " << reason);
    CHECK(expected.used.contains(row));
  }
}
