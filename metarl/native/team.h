// Shares parts of a piece of work out to threads that are kept from call to call.
//
// To wake a sleeping thread can take longer than a minibatch (half a millisecond in some virtual
// machines). So a thread that has finished its part polls for the next one for a moment, yielding
// the processor meanwhile, before it sleeps.

#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace {

constexpr std::chrono::microseconds AWAKE{500};  // how long a thread polls before it sleeps

// A count that one thread raises and another waits for.
class Count {
 public:
  void raise() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      count.fetch_add(1, std::memory_order_release);
    }
    raised.notify_one();
  }
  void await(uint64_t wanted) {
    const auto reached = [&] { return count.load(std::memory_order_acquire) >= wanted; };
    const auto until = std::chrono::steady_clock::now() + AWAKE;
    while (!reached()) {
      if (std::chrono::steady_clock::now() < until) {
        std::this_thread::yield();
        continue;
      }
      std::unique_lock<std::mutex> lock(mutex);
      raised.wait(lock, reached);
    }
  }

 private:
  std::atomic<uint64_t> count{0};
  std::mutex mutex;
  std::condition_variable raised;
};

class Team {
 public:
  // Calls run(part) for parts 0, ..., parts - 1: the first here, each other by a thread. All are
  // called here where another thread uses the team.
  template <class Run>
  void share(int parts, Run run) {
    std::unique_lock<std::mutex> turn(mutex, std::defer_lock);
    const int others = parts > 1 && turn.try_lock() ? grow_to(parts - 1) : 0;
    for (int i = 0; i < others; i++) {
      Member& member = *members[i];
      member.call = [](void* run, int part) { (*static_cast<Run*>(run))(part); };
      member.run = &run;
      member.given.raise();
    }
    run(0);
    for (int part = others + 1; part < parts; part++) run(part);
    for (int i = 0; i < others; i++) members[i]->finished.await(++members[i]->calls);
  }

 private:
  struct Member {
    Count given, finished;
    uint64_t calls = 0;
    void (*call)(void*, int) = nullptr;
    void* run = nullptr;

    void work(int part) {
      for (uint64_t number = 1;; number++) {
        given.await(number);
        call(run, part);
        finished.raise();
      }
    }
  };

  std::mutex mutex;
  std::vector<std::unique_ptr<Member>> members;

  // Members up to this number; fewer where the system gives no more threads.
  int grow_to(int wanted) {
    try {
      while ((int)members.size() < wanted) {
        auto member = std::make_unique<Member>();
        const int part = (int)members.size() + 1;
        std::thread([at = member.get(), part] { at->work(part); }).detach();
        members.push_back(std::move(member));
      }
    } catch (const std::system_error&) {
    }
    return std::min(wanted, (int)members.size());
  }
};

// Never destroyed: its threads run until the process ends. A forked process has none of them and
// gets a new team.
inline Team*& team() {
  static Team* instance = [] {
    pthread_atfork(nullptr, nullptr, [] { team() = new Team; });
    return new Team;
  }();
  return instance;
}

template <class Step, class... Others, size_t... I>
inline void call_part(void (*kernel)(const Step*, int, int, Others...), const void* step, int first,
                      int last, void* const* others, std::index_sequence<I...>) {
  kernel(static_cast<const Step*>(step), first, last, static_cast<Others>(others[I])...);
}

// Calls kernel(step, first, last, others...) for nearly equal parts of the blocks, in a thread
// each. `others` holds the further arguments, [parts, number of them].
template <class Step, class... Others>
inline void share_out(void (*kernel)(const Step*, int, int, Others...), const void* step,
                      int blocks, int parts, void* const* others) {
  team()->share(parts, [&](int part) {
    const int first = (int)((long)part * blocks / parts);
    const int last = (int)((long)(part + 1) * blocks / parts);
    call_part(kernel, step, first, last, others + part * sizeof...(Others),
              std::index_sequence_for<Others...>{});
  });
}

}  // namespace
