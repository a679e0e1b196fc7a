// The numbers of independent random streams: SplitMix64 (Steele et al. 2014) as a counter-based
// generator, as `metarl/noise.py` defines it, bit by bit.

#pragma once

#include <cstdint>

extern "C" {

// Mirrored by `Draw` in library.py.
struct Draw {
  const int64_t* keys;  // [L]
  int64_t counter;      // of the first element of the first step
  int64_t stride;       // from one step to the next
  int32_t lanes, size, steps;
};
}

namespace {

inline uint64_t mix(uint64_t word) {
  word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9u;
  word = (word ^ word >> 27) * 0x94D049BB133111EBu;
  return word ^ word >> 31;
}

// out [steps, lanes, size] = to_number(word)
template <class Number, class Convert>
inline void draw_each(const Draw& draw, Number* out, Convert to_number) {
  for (int step = 0; step < draw.steps; step++, out += (long)draw.lanes * draw.size)
    for (int element = 0; element < draw.size; element++) {
      const uint64_t counter = (uint64_t)draw.counter + step * (uint64_t)draw.stride + element;
      const uint64_t increment = counter * 0x9E3779B97F4A7C15u;
      Number* to = out + element;
      if (draw.size == 1)
        for (int lane = 0; lane < draw.lanes; lane++)
          to[lane] = to_number(mix(draw.keys[lane] + increment));
      else
        for (int lane = 0; lane < draw.lanes; lane++)
          to[(long)lane * draw.size] = to_number(mix(draw.keys[lane] + increment));
    }
}

}  // namespace

extern "C" {

void draw_words(const Draw* draw, int64_t* out) {
  draw_each(*draw, out, [](uint64_t word) { return (int64_t)word; });
}

// In [0, 1), by the upper 24 bits.
void draw_uniform(const Draw* draw, float* out) {
  draw_each(*draw, out, [](uint64_t word) { return (int32_t)(word >> 40) * 0x1p-24f; });
}

// In 0, ..., high - 1, by the upper 53 bits.
void draw_integers(const Draw* draw, int64_t high, int64_t* out) {
  const double number = (double)high;
  draw_each(*draw, out, [number](uint64_t word) {
    return (int64_t)((double)(int64_t)(word >> 11) * 0x1p-53 * number);
  });
}

}  // extern "C"
