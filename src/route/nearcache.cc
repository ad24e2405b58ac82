// NEARCACHE: what users tell this process about its cache, and ask of it.
//
// Whoever invalidates must be allowed something comparable at the server, which is asked first:
// reading the keys (INVALIDATE), SCAN (PATTERN), CLIENT KILL (what concerns everybody). With
// UPSTREAM the deletion itself runs with the rights of whoever asked.
#include <charconv>

#include "bus/schedules.h"
#include "nearcached/base/clock.h"
#include "nearcached/base/hash.h"
#include "nearcached/resp/writer.h"
#include "route/router.h"

namespace nearcached {
namespace {

using coherence::BusMessage;
using coherence::Cause;
using coherence::Schedule;

constexpr Bytes kAdmin[] = {"CLIENT", "KILL", "ID", "0"};
constexpr Bytes kSyntax = "-ERR syntax error. Try NEARCACHE HELP.\r\n";

constexpr Bytes kHelp[] = {
    "NEARCACHE <subcommand> [<arg> ...]. Subcommands are:",
    "INVALIDATE <key> [<key> ...] [LOCAL] [UPSTREAM]",
    "    Drop the keys from L1, of every proxy of this upstream. LOCAL: of this one only. "
    "UPSTREAM:",
    "    delete them in Redis first. Answers how many proxies there are and have acknowledged.",
    "PATTERN <glob> [LOCAL] [UPSTREAM]",
    "    Drop what matches. UPSTREAM: also delete it in Redis, in the background (see JOBS).",
    "FLUSH [LOCAL]",
    "    Drop everything from L1. The upstream is not touched.",
    "SCHEDULE INVALIDATE|PATTERN <what> AFTER <ms>|AT <unix-ms> [EVERY <ms>] [UPSTREAM]",
    "    Do that later, once or again and again; kept in Redis, fired once for all proxies. "
    "Answers an id.",
    "SCHEDULES",
    "    What is scheduled.",
    "UNSCHEDULE <id>",
    "    Take a schedule back.",
    "JOBS",
    "    The progress of PATTERN ... UPSTREAM in this process.",
    "TOPOLOGY [REFRESH]",
    "    The nodes behind this proxy: roles, slots, connections, latency, breaker, last error. "
    "REFRESH:",
    "    ask them anew, soon.",
    "INSPECT <key>",
    "    Say whether and why (not) a key is cached: one line per item and worker.",
    "STATS",
    "    The counters of INFO nearcached.",
    "HELP",
    "    Print this help.",
};

struct Options {
  bool local = false;
  bool upstream = false;
};

// Takes LOCAL and UPSTREAM off the end; the first `keep` arguments are never options.
Options take_options(std::span<const Bytes>& args, size_t keep) {
  Options options;
  while (args.size() > keep) {
    if (equals_upper(args.back(), "LOCAL")) options.local = true;
    else if (equals_upper(args.back(), "UPSTREAM")) options.upstream = true;
    else break;
    args = args.first(args.size() - 1);
  }
  return options;
}

constexpr Bytes kTooLong =
    "-ERR more than 1 MiB of keys at once: send several commands, or a PATTERN\r\n";

bool is_too_long(std::span<const Bytes> args) {
  size_t bytes = 0;
  for (const Bytes arg : args) bytes += arg.size() + sizeof(uint32_t);
  return bytes + 64 > coherence::kMessageBytesMax;
}

bool to_number(Bytes text, uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

// A flat map of names and numbers.
std::string numbers(std::initializer_list<std::pair<Bytes, uint64_t>> pairs, int resp) {
  Buffer out;
  resp::write_map(out, pairs.size(), resp);
  for (const auto& [name, number] : pairs) {
    resp::write_bulk(out, name);
    resp::write_integer(out, static_cast<int64_t>(number));
  }
  return std::string(out.readable());
}

std::string verbatim(const std::string& text, int resp) {
  Buffer out;
  resp::write_verbatim(out, text, resp);
  return std::string(out.readable());
}

std::string error_reply(const std::string& text) {
  Buffer out;
  resp::write_error(out, text);
  return std::string(out.readable());
}

std::string line_of(const Schedules::Listed& listed) {
  const Schedule& s = listed.schedule;
  return "id=" + listed.id +
         " kind=" + (s.kind == Schedule::Kind::pattern ? "pattern" : "invalidate") +
         " at=" + std::to_string(s.base_ms != 0 ? s.base_ms : s.due_ms) +
         " every=" + std::to_string(s.every_ms) + " upstream=" + (s.upstream ? "1" : "0") +
         " db=" + std::to_string(s.database) +
         (s.base_ms != 0 ? " state=running" : " state=waiting") + " what=" + quoted(s.what) + "\n";
}

}  // namespace

Session::Outcome Router::nearcache(Session& session, std::span<const Bytes> args) {
  if (args.size() < 2) {
    session.reply("-ERR wrong number of arguments for 'nearcache' command\r\n");
    return Outcome::done;
  }
  const auto is = [&](Bytes name, size_t least, size_t most) {
    return equals_upper(args[1], name) && args.size() >= least && args.size() <= most;
  };
  constexpr size_t kAny = SIZE_MAX;
  if (is("STATS", 2, 2)) {
    refresh_gauges();
    session.reply(verbatim(info_section(), session.resp));
  } else if (is("HELP", 2, 2)) {
    Buffer out;
    resp::write_array(out, std::size(kHelp));
    for (const Bytes text : kHelp) resp::write_simple(out, text);
    session.reply(out.readable());
  } else if (is("INSPECT", 3, 3)) {
    inspect_command(session, args[2]);
  } else if (is("INVALIDATE", 3, kAny)) {
    invalidate_command(session, args);
  } else if (is("PATTERN", 3, 5)) {
    pattern_command(session, args);
  } else if (is("FLUSH", 2, 3)) {
    flush_command(session, args);
  } else if (is("SCHEDULE", 6, 9)) {
    schedule_command(session, args);
  } else if (is("SCHEDULES", 2, 2) || is("UNSCHEDULE", 3, 3)) {
    schedules_command(session, args);
  } else if (is("TOPOLOGY", 2, 3) && (args.size() == 2 || equals_upper(args[2], "REFRESH"))) {
    if (args.size() == 3) process_.discovery->refresh("NEARCACHE TOPOLOGY REFRESH");
    if_allowed(session, kAdmin, [this](SessionRef ref, ReplyQueue::Slot slot) {
      if (Session* waiting = find(ref))
        waiting->deliver(slot, verbatim(topology_text(), waiting->resp), true);
    });
  } else if (is("JOBS", 2, 2)) {
    gather(
        session, kAdmin,
        [](Router& router, std::string& part) {
          for (const auto& job : router.jobs_) part += job->to_line();
        },
        [resp = session.resp](const std::vector<std::string>& parts) {
          std::string text;
          for (const std::string& part : parts) text += part;
          return verbatim(text, resp);
        });
  } else {
    std::string error = "-ERR unknown subcommand or wrong number of arguments for '";
    for (const char c : args[1].substr(0, 64)) error += c >= ' ' && c <= '~' ? c : '?';
    session.reply(error + "'. Try NEARCACHE HELP.\r\n");
  }
  return Outcome::done;
}

void Router::inspect_command(Session& session, Bytes name) {
  const std::string key(name);
  const Bytes probe[] = {"EXISTS", key};
  gather(
      session, probe, [key](Router& router, std::string& part) { router.inspect(key, part); },
      [this, key, resp = session.resp](const std::vector<std::string>& parts) {
        std::string text;
        for (const std::string& part : parts) text += part;
        if (text.empty()) text = verdict_on(key) + "\n";
        return verbatim(text, resp);
      });
}

// Delivers a reply from the control loop.
Router::Answerer Router::answerer(SessionRef ref, ReplyQueue::Slot slot) {
  return [this, ref, slot](const std::string& reply) {
    process_.post(index_, [this, ref, slot, reply] {
      if (Session* waiting = find(ref)) waiting->deliver(slot, reply, true);
    });
  };
}

// Sends an explicit invalidation to all proxies; `extra` comes first in the answer.
void Router::invalidate_everywhere(const Explicit& what, const Answerer& answer) {
  process_.bus->request(
      what.kind, what.cause, what.items, what.database,
      [what, answer](const Bus::Outcome& outcome) {
        if (!outcome.error.empty())
          return answer(
              error_reply("ERR dropped here, but not known to be elsewhere: " + outcome.error));
        const std::pair<Bytes, uint64_t> proxies{"proxies", outcome.receivers};
        const std::pair<Bytes, uint64_t> acknowledged{"acknowledged", outcome.acknowledged};
        if (what.extra_name.empty()) return answer(numbers({proxies, acknowledged}, what.resp));
        answer(numbers({proxies, acknowledged, {what.extra_name, what.extra}}, what.resp));
      });
}

void Router::invalidate_command(Session& session, std::span<const Bytes> args) {
  const Options options = take_options(args, 3);
  if (is_too_long(args)) return session.reply(kTooLong);
  std::vector<std::string> keys(args.begin() + 2, args.end());
  std::vector<Bytes> probe{"EXISTS"};
  probe.insert(probe.end(), args.begin() + 2, args.end());
  const Explicit what{
      BusMessage::Kind::invalidate, Cause::bus, keys, session.database, session.resp, {}, 0};
  const auto drop = [this, options, what](SessionRef ref, ReplyQueue::Slot slot, Bytes name,
                                          uint64_t extra) {
    Explicit told = what;
    told.extra_name = name;
    told.extra = extra;
    if (!options.local) return invalidate_everywhere(told, answerer(ref, slot));
    for (const std::string& key : told.items)
      process_.stamps.invalidate(hash_key(key, process_.hash_seed));
    stats_.invalidations_bus.add(told.items.size());
    Session* waiting = find(ref);
    if (waiting == nullptr) return;
    if (name.empty())
      waiting->deliver(slot, numbers({{"proxies", 1}, {"acknowledged", 1}}, told.resp), true);
    else
      waiting->deliver(
          slot, numbers({{"proxies", 1}, {"acknowledged", 1}, {name, extra}}, told.resp), true);
  };
  if_allowed(session, probe, [this, options, keys, drop](SessionRef ref, ReplyQueue::Slot slot) {
    if (!options.upstream) return drop(ref, slot, {}, 0);
    Session* waiting = find(ref);
    if (waiting == nullptr) return;
    unlink_keys(*waiting->lane, keys, [this, ref, slot, drop](Bytes reply) {
      uint64_t deleted = 0;
      if (reply.starts_with(":")) {
        std::from_chars(reply.data() + 1, reply.data() + reply.size(), deleted);
        return drop(ref, slot, "deleted", deleted);
      }
      if (Session* refused = find(ref)) refused->deliver(slot, reply, true);
    });
  });
}

void Router::pattern_command(Session& session, std::span<const Bytes> args) {
  const Options options = take_options(args, 3);
  if (args.size() != 3) return session.reply(kSyntax);
  if (is_too_long(args)) return session.reply(kTooLong);
  Explicit what{BusMessage::Kind::pattern,
                Cause::pattern,
                {std::string(args[2])},
                session.database,
                session.resp,
                {},
                0};
  constexpr Bytes kProbe[] = {"SCAN", "0", "COUNT", "1"};
  if_allowed(session, kProbe, [this, options, what](SessionRef ref, ReplyQueue::Slot slot) mutable {
    Session* const waiting = find(ref);
    if (waiting == nullptr) return;
    if (options.upstream) {
      const PatternJob* job = start_job(waiting->identity, what.database, what.items[0], nullptr);
      if (job == nullptr)
        return waiting->deliver(slot, "-ERR too many walks at once (limits.pattern_jobs)\r\n",
                                true);
      what.extra_name = "job";
      what.extra = job->id;
    }
    if (!options.local) return invalidate_everywhere(what, answerer(ref, slot));
    process_.on_pattern_here(what.items[0], stats_);
    if (options.upstream)
      waiting->deliver(
          slot, numbers({{"proxies", 1}, {"acknowledged", 1}, {"job", what.extra}}, what.resp),
          true);
    else waiting->deliver(slot, numbers({{"proxies", 1}, {"acknowledged", 1}}, what.resp), true);
  });
}

void Router::flush_command(Session& session, std::span<const Bytes> args) {
  const Options options = take_options(args, 2);
  if (args.size() != 2 || options.upstream) return session.reply(kSyntax);
  const Explicit what{
      BusMessage::Kind::flush, Cause::bus, {}, session.database, session.resp, {}, 0};
  if_allowed(session, kAdmin, [this, options, what](SessionRef ref, ReplyQueue::Slot slot) {
    if (!options.local) return invalidate_everywhere(what, answerer(ref, slot));
    process_.flush_here(stats_);
    if (Session* waiting = find(ref))
      waiting->deliver(slot, numbers({{"proxies", 1}, {"acknowledged", 1}}, what.resp), true);
  });
}

void Router::schedule_command(Session& session, std::span<const Bytes> args) {
  if (is_too_long(args)) return session.reply(kTooLong);
  Schedule schedule;
  const bool pattern = equals_upper(args[2], "PATTERN");
  if (!pattern && !equals_upper(args[2], "INVALIDATE")) return session.reply(kSyntax);
  schedule.kind = pattern ? Schedule::Kind::pattern : Schedule::Kind::invalidate;
  schedule.what.assign(args[3]);
  schedule.database = session.database;
  const bool after = equals_upper(args[4], "AFTER");
  constexpr uint64_t kMsMax = 1ull << 45;  // a thousand years
  if ((!after && !equals_upper(args[4], "AT")) || !to_number(args[5], schedule.due_ms) ||
      schedule.due_ms > kMsMax)
    return session.reply(kSyntax);
  for (size_t i = 6; i < args.size(); ++i) {
    if (equals_upper(args[i], "UPSTREAM")) schedule.upstream = true;
    else if (equals_upper(args[i], "EVERY") && i + 1 < args.size() &&
             to_number(args[i + 1], schedule.every_ms) && schedule.every_ms >= 1 &&
             schedule.every_ms <= kMsMax)
      ++i;
    else return session.reply(kSyntax);
  }
  // What is deleted later is deleted with the proxy's own rights: only an administrator may.
  const std::vector<Bytes> probe = schedule.upstream
                                       ? std::vector<Bytes>(std::begin(kAdmin), std::end(kAdmin))
                                   : pattern ? std::vector<Bytes>{"SCAN", "0", "COUNT", "1"}
                                             : std::vector<Bytes>{"EXISTS", args[3]};
  if_allowed(session, probe, [this, schedule, after](SessionRef ref, ReplyQueue::Slot slot) {
    process_.schedules->add(
        schedule, after,
        [answer = answerer(ref, slot)](const std::string& id, const std::string& error) {
          if (!error.empty()) return answer(error_reply("ERR not scheduled: " + error));
          Buffer out;
          resp::write_bulk(out, id);
          answer(std::string(out.readable()));
        });
  });
}

void Router::schedules_command(Session& session, std::span<const Bytes> args) {
  const bool list = args.size() == 2;
  const std::string id(list ? Bytes() : args[2]);
  if_allowed(
      session, kAdmin,
      [this, list, id, resp = session.resp](SessionRef ref, ReplyQueue::Slot slot) {
        const Answerer answer = answerer(ref, slot);
        if (list)
          return process_.schedules->list(
              [answer, resp](const std::vector<Schedules::Listed>& all, const std::string& error) {
                if (!error.empty()) return answer(error_reply("ERR " + error));
                std::string text;
                for (const Schedules::Listed& listed : all) text += line_of(listed);
                answer(verbatim(text, resp));
              });
        process_.schedules->remove(id, [answer](bool was_there, const std::string& error) {
          if (!error.empty()) return answer(error_reply("ERR " + error));
          answer(was_there ? ":1\r\n" : ":0\r\n");
        });
      });
}

}  // namespace nearcached
