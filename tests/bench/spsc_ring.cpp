// The ring's peer: a single-producer, single-consumer ring as one would write it in C++, and the same work as rings.py
// gives its kernels. Rows of 128 bytes, known when compiled; cursors and their cached copies on lines of their own;
// acquire and release and nothing stronger; the other side's cursor is looked at only when the cached copy says too
// little. Built by rings.py with -O3 -march=native.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr std::size_t line_bytes = 128;

struct alignas(line_bytes) Row {
    std::int64_t words[16];
};

class SpscRing {
  public:
    explicit SpscRing(std::int64_t capacity)
        : capacity_(capacity), rows_(static_cast<Row*>(std::aligned_alloc(line_bytes, capacity * sizeof(Row)))) {
        if (rows_ == nullptr) throw std::bad_alloc();
        std::memset(static_cast<void*>(rows_), 0, capacity * sizeof(Row));
    }
    ~SpscRing() { std::free(rows_); }
    SpscRing(const SpscRing&) = delete;
    SpscRing& operator=(const SpscRing&) = delete;

    bool push(const Row& row) {
        const std::int64_t tail = tail_.load(std::memory_order_relaxed);
        if (tail - cached_head_ == capacity_) {
            cached_head_ = head_.load(std::memory_order_acquire);
            if (tail - cached_head_ == capacity_) return false;
        }
        rows_[tail & (capacity_ - 1)] = row;
        tail_.store(tail + 1, std::memory_order_release);
        return true;
    }

    bool pop(Row& out) {
        const std::int64_t head = head_.load(std::memory_order_relaxed);
        if (head == cached_tail_) {
            cached_tail_ = tail_.load(std::memory_order_acquire);
            if (head == cached_tail_) return false;
        }
        out = rows_[head & (capacity_ - 1)];
        head_.store(head + 1, std::memory_order_release);
        return true;
    }

    std::int64_t push(const Row* rows, std::int64_t count) {
        const std::int64_t tail = tail_.load(std::memory_order_relaxed);
        if (capacity_ - (tail - cached_head_) < count) {
            cached_head_ = head_.load(std::memory_order_acquire);
            count = std::min(count, capacity_ - (tail - cached_head_));
            if (count == 0) return 0;
        }
        const std::int64_t first = tail & (capacity_ - 1);
        const std::int64_t before_wrap = std::min(count, capacity_ - first);
        std::memcpy(rows_ + first, rows, before_wrap * sizeof(Row));
        if (before_wrap < count) std::memcpy(rows_, rows + before_wrap, (count - before_wrap) * sizeof(Row));
        tail_.store(tail + count, std::memory_order_release);
        return count;
    }

    std::int64_t pop(Row* out, std::int64_t count) {
        const std::int64_t head = head_.load(std::memory_order_relaxed);
        if (cached_tail_ - head < count) {
            cached_tail_ = tail_.load(std::memory_order_acquire);
            count = std::min(count, cached_tail_ - head);
            if (count == 0) return 0;
        }
        const std::int64_t first = head & (capacity_ - 1);
        const std::int64_t before_wrap = std::min(count, capacity_ - first);
        std::memcpy(out, rows_ + first, before_wrap * sizeof(Row));
        if (before_wrap < count) std::memcpy(out + before_wrap, rows_, (count - before_wrap) * sizeof(Row));
        head_.store(head + count, std::memory_order_release);
        return count;
    }

  private:
    const std::int64_t capacity_;
    Row* const rows_;
    alignas(line_bytes) std::atomic<std::int64_t> tail_{0};
    alignas(line_bytes) std::int64_t cached_head_{0};
    alignas(line_bytes) std::atomic<std::int64_t> head_{0};
    alignas(line_bytes) std::int64_t cached_tail_{0};
};

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#endif
}

void stamp(Row* rows, std::int64_t count, std::int64_t sequence) {
    for (std::int64_t row = 0; row < count; ++row) rows[row].words[0] = sequence + row;
}

std::int64_t out_of_order(const Row* rows, std::int64_t count, std::int64_t sequence) {
    std::int64_t wrong = 0;
    for (std::int64_t row = 0; row < count; ++row) wrong += rows[row].words[0] != sequence + row;
    return wrong;
}

}  // namespace

extern "C" {

void* ring_new(std::int64_t capacity) { return new SpscRing(capacity); }

void ring_delete(void* ring) { delete static_cast<SpscRing*>(ring); }

// Each returns how many rows did not carry the number that they should.

std::int64_t batches(void* opaque, Row* source, Row* out, std::int64_t batch, std::int64_t total) {
    SpscRing& ring = *static_cast<SpscRing*>(opaque);
    std::int64_t wrong = 0;
    for (std::int64_t sequence = 0; sequence < total; sequence += batch) {
        stamp(source, batch, sequence);
        wrong += ring.push(source, batch) != batch;
        wrong += ring.pop(out, batch) != batch;
        wrong += out_of_order(out, batch, sequence);
    }
    return wrong;
}

std::int64_t one_by_one(void* opaque, const Row* source, Row* out, std::int64_t batch, std::int64_t total) {
    SpscRing& ring = *static_cast<SpscRing*>(opaque);
    std::int64_t wrong = 0;
    for (std::int64_t sequence = 0; sequence < total; ++sequence) {
        const std::int64_t row = sequence & (batch - 1);
        wrong += !ring.push(source[row]);
        wrong += !ring.pop(*out);
        wrong += out->words[0] != row;
    }
    return wrong;
}

std::int64_t produce(void* opaque, Row* source, std::int64_t batch, std::int64_t total) {
    SpscRing& ring = *static_cast<SpscRing*>(opaque);
    for (std::int64_t sequence = 0; sequence < total; sequence += batch) {
        stamp(source, batch, sequence);
        for (std::int64_t pushed = 0; pushed < batch;) {
            const std::int64_t count = ring.push(source + pushed, batch - pushed);
            if (count == 0) pause();
            pushed += count;
        }
    }
    return 0;
}

std::int64_t consume(void* opaque, Row* out, std::int64_t batch, std::int64_t total) {
    SpscRing& ring = *static_cast<SpscRing*>(opaque);
    std::int64_t wrong = 0;
    for (std::int64_t sequence = 0; sequence < total;) {
        const std::int64_t count = ring.pop(out, batch);
        if (count == 0) pause();
        wrong += out_of_order(out, count, sequence);
        sequence += count;
    }
    return wrong;
}

}  // extern "C"
