// An intrusive queue of items, oldest first out, that knows the bytes it holds.
#pragma once
#include <cstdint>

#include "l1/heap.h"
#include "l1/item.h"

namespace nearcached::l1 {

struct Fifo {
  Item* newest = nullptr;
  Item* oldest = nullptr;
  uint64_t items = 0;
  uint64_t bytes = 0;

  void push(Item* item) {
    item->newer = nullptr;
    item->older = newest;
    (newest != nullptr ? newest->newer : oldest) = item;
    newest = item;
    ++items;
    bytes += heap_cost(item, item->block_bytes());
  }
  void unlink(Item* item) {
    (item->newer != nullptr ? item->newer->older : newest) = item->older;
    (item->older != nullptr ? item->older->newer : oldest) = item->newer;
    --items;
    bytes -= heap_cost(item, item->block_bytes());
  }
};

}  // namespace nearcached::l1
