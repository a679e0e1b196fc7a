// The arguments of a recurrent layer, and how its buffers are laid out.
//
// T steps, L lanes, B lanes of a block, F inputs, E embedded inputs (H, or F without an embedding),
// H hidden size, P = H rounded up to whole vectors, U distinct rows. Padding stays zero throughout.

#pragma once

#include <algorithm>

#include "vectors.h"

extern "C" {

enum { GRU = 0, LSTM = 1 };

// Mirrored by `Layer` in library.py.
struct Layer {
  int32_t cell, embedded, steps, lanes, inputs, hidden, distinct, backward, all_lanes;
  int32_t block;  // lanes that go through all steps together
  const float *embedding, *embedding_bias;                 // [H, F], [H]
  const float *weight_ih, *weight_hh, *bias_ih, *bias_hh;  // as in torch.nn.GRU and LSTM
  const float* x;                                          // [T, all lanes, F], or [U, F]
  const int32_t* row;           // [T, all lanes] rows of x, if U > 0
  const int64_t* lane;          // [L] among all lanes; null: all of them
  const float *hidden0, *cell0; // [L, H]; null: zeros
  float *packed, *tape;
};
}

namespace {

constexpr int GROUP_ROWS = 128; // rows for which products outside the recurrence are done at once

// Gates in the rows of a block, each P wide. A GRU has [n, r, z, m], where m = U_n h + c_n: inputs
// reach the first three, the recurrent product the last three. An LSTM has [i, f, g, o].
struct Sizes {
  int T, L, B, F, H, P, E, U, gates, first_recurrent;
  bool embedded, lstm;
  explicit Sizes(const Layer& layer)
      : T(layer.steps), L(layer.lanes), B(layer.block), F(layer.inputs), H(layer.hidden),
        P(rounded_up(layer.hidden, WIDTH)), E(layer.embedded ? layer.hidden : layer.inputs),
        U(layer.distinct), gates(layer.cell == LSTM ? 4 : 3),
        first_recurrent(layer.cell == LSTM ? 0 : 1), embedded(layer.embedded),
        lstm(layer.cell == LSTM) {}
  int group_steps(int lanes) const { return std::max(1, GROUP_ROWS / lanes); }
  int width() const { return 4 * P; }         // of a row of gates
  int product() const { return gates * P; }   // columns of an input or recurrent product
  int recurrent() const { return first_recurrent * P; }  // first column of the recurrent product
  // Torch's number of the gate in a slot.
  int input_gate(int slot) const { return lstm ? slot : (slot + 2) % 3; }
};

// Weights as panels, biases joined, and what the distinct inputs become.
struct Packed {
  float *embed, *input, *recurrent, *input_back, *recurrent_back;
  float *embed_bias, *input_bias, *inner_bias, *embedded_rows, *table;
  long size;
  Packed(const Sizes& s, float* buffer) {
    Parts parts{buffer};
    embed = parts.take(s.embedded ? (long)s.F * s.P : 0);
    input = parts.take((long)s.E * s.product());
    recurrent = parts.take((long)s.H * s.product());
    input_back = parts.take((long)s.product() * rounded_up(s.E, WIDTH));
    recurrent_back = parts.take((long)s.product() * s.P);
    embed_bias = parts.take(s.P);
    input_bias = parts.take(s.product());
    inner_bias = parts.take(s.P);
    embedded_rows = parts.take((long)s.U * s.P);
    table = parts.take((long)s.U * s.product());
    size = parts.used;
  }
};

// What a block keeps for its backward pass.
struct Tape {
  float *hidden, *cell, *gates, *embedded;
  static long lane_size(const Sizes& s) {
    const long cells = s.lstm ? s.T + 1 : 0, embedded = s.embedded && !s.U ? s.T : 0;
    return s.P * (s.T + 1 + cells + 4L * s.T + embedded);
  }
  Tape(const Sizes& s, float* tape, int first_lane, int lanes) {
    float* at = tape + first_lane * lane_size(s);
    const auto take = [&](long steps) {
      float* part = at;
      at += steps * lanes * s.P;
      return part;
    };
    hidden = take(s.T + 1);
    cell = take(s.lstm ? s.T + 1 : 0);
    gates = take(4L * s.T);
    embedded = take(0);
  }
};

// Sums of gradients in the layout of the products.
struct Sums {
  float *embed, *embed_bias, *input, *recurrent, *bias, *table;
  long size;
  Sums(const Sizes& s, float* buffer) {
    Parts parts{buffer};
    embed = parts.take(s.embedded ? (long)s.F * s.P : 0);
    embed_bias = parts.take(s.P);
    input = parts.take((long)s.E * s.product());
    recurrent = parts.take((long)s.H * s.product());
    bias = parts.take(s.width());
    table = parts.take((long)s.U * s.product());
    size = parts.used;
  }
};

}  // namespace
