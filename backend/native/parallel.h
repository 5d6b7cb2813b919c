// Splitting independent work over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace he {

// work(first, last) on ranges that together are [0, count), each of at most `grain` items, on up to `threads` threads.
// The first exception that a range throws is thrown again here.
template <class F>
void parallel_ranges(std::size_t count, std::size_t grain, int threads, F&& work) {
    if (!count) return;
    grain = std::max<std::size_t>(1, grain);
    const std::size_t ranges = (count + grain - 1) / grain;
    const std::size_t workers = std::min<std::size_t>(std::max(1, threads), ranges);
    if (workers == 1) {
        for (std::size_t first = 0; first < count; first += grain) work(first, std::min(count, first + grain));
        return;
    }
    std::atomic<std::size_t> next{0};
    std::exception_ptr failure;
    std::mutex failure_lock;
    auto loop = [&] {
        try {
            for (std::size_t range; (range = next.fetch_add(1)) < ranges;)
                work(range * grain, std::min(count, (range + 1) * grain));
        } catch (...) {
            const std::lock_guard<std::mutex> guard(failure_lock);
            if (!failure) failure = std::current_exception();
            next.store(ranges);
        }
    };
    std::vector<std::thread> pool;
    for (std::size_t i = 1; i < workers; ++i) pool.emplace_back(loop);
    loop();
    for (auto& thread : pool) thread.join();
    if (failure) std::rethrow_exception(failure);
}

// States made by `make` and kept for the next call, so that their memory is not mapped anew each time.
template <class STATE>
class Pool {
  public:
    template <class F>
    std::unique_ptr<STATE> take(F&& make) {
        {
            const std::lock_guard<std::mutex> guard(lock_);
            if (!idle_.empty()) {
                auto state = std::move(idle_.back());
                idle_.pop_back();
                return state;
            }
        }
        return make();
    }
    void give(std::unique_ptr<STATE> state) {
        const std::lock_guard<std::mutex> guard(lock_);
        idle_.push_back(std::move(state));
    }

  private:
    std::mutex lock_;
    std::vector<std::unique_ptr<STATE>> idle_;
};

}  // namespace he
