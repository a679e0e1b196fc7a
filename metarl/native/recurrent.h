// A recurrent layer over whole sequences: embedding, GRU or LSTM; forward and backward.
//
// `metarl/networks/recurrent.py` defines in torch what is computed here. Three things make it fast
// where sequences are short and layers small: a block of lanes goes through all steps at once, so
// that its rows stay in the cache; nothing but the recurrent product is done step by step; and
// where many input rows are equal, as with discrete observations, each distinct one is embedded
// once. Blocks are independent: threads may share them out, each with gradient sums of its own.
//
// Axes and buffers: recurrent_layout.h.

#pragma once

#include <algorithm>
#include <vector>

#include "recurrent_layout.h"

namespace {

inline void copy_lanes(const Sizes& s, const float* from, float* to, int lanes) {
  for (int b = 0; b < lanes; b++) {
    memcpy(to + (long)b * s.P, from + (long)b * s.H, s.H * sizeof(float));
    for (int j = s.H; j < s.P; j++) to[(long)b * s.P + j] = 0;
  }
}

// h' = n + z (h - n),  n = tanh(x_n + r m)
inline void gru_step(const Sizes& s, float* gates, const float* before, float* after, int lanes) {
  const int P = s.P;
  for (int b = 0; b < lanes; b++, gates += 4 * P, before += P, after += P)
    for (int j = 0; j < P; j += WIDTH) {
      const Vector r = sigmoid(load(gates + P + j)), z = sigmoid(load(gates + 2 * P + j));
      const Vector n = hyperbolic_tangent(load(gates + j) + r * load(gates + 3 * P + j));
      store(gates + j, n);
      store(gates + P + j, r);
      store(gates + 2 * P + j, z);
      store(after + j, n + z * (load(before + j) - n));
    }
}

// c' = f c + i g,  h' = o tanh(c')
inline void lstm_step(const Sizes& s, float* gates, const float* cell, float* next_cell,
                      float* after, int lanes) {
  const int P = s.P;
  for (int b = 0; b < lanes; b++, gates += 4 * P, cell += P, next_cell += P, after += P)
    for (int j = 0; j < P; j += WIDTH) {
      const Vector i = sigmoid(load(gates + j)), f = sigmoid(load(gates + P + j));
      const Vector g = hyperbolic_tangent(load(gates + 2 * P + j));
      const Vector o = sigmoid(load(gates + 3 * P + j)), next = f * load(cell + j) + i * g;
      store(gates + j, i);
      store(gates + P + j, f);
      store(gates + 2 * P + j, g);
      store(gates + 3 * P + j, o);
      store(next_cell + j, next);
      store(after + j, o * hyperbolic_tangent(next));
    }
}

// One pass over a block of lanes.
struct Block {
  const Layer& layer;
  const Sizes& s;
  const Packed& packed;
  const int from, lanes;
  Tape tape;
  std::vector<float> rows;  // inputs of a group, [R, F]

  Block(const Layer& layer, const Sizes& s, const Packed& packed, int number, Tape tape)
      : layer(layer), s(s), packed(packed), from(number * s.B),
        lanes(std::min(s.B, s.L - from)), tape(tape),
        rows(s.U ? 0 : (long)group_steps() * lanes * s.F) {}

  int group_steps() const { return s.group_steps(lanes); }
  // Where step and lane of a row of the block lie among those of all lanes.
  long place(int row) const {
    const int lane = from + row % lanes;
    return (long)(row / lanes) * layer.all_lanes + (layer.lane ? layer.lane[lane] : lane);
  }
  float* gates(int t) { return tape.gates + (long)t * lanes * s.width(); }
  float* hidden(int t) { return tape.hidden + (long)t * lanes * s.P; }
  float* cell(int t) { return tape.cell + (long)t * lanes * s.P; }
  float* embedded(int t) { return tape.embedded + (long)t * lanes * s.P; }

  void gather_inputs(int first, int last) {
    for (int i = first * lanes; i < last * lanes; i++)
      memcpy(rows.data() + (long)(i - first * lanes) * s.F, layer.x + place(i) * s.F,
             s.F * sizeof(float));
  }

  // The inputs' part of the gates of steps first, ..., last - 1.
  void input_product(int first, int last) {
    const int R = (last - first) * lanes;
    float* to = gates(first);
    if (s.U) {
      for (int i = 0; i < R; i++)
        memcpy(to + (long)i * s.width(),
               packed.table + (long)layer.row[place(first * lanes + i)] * s.product(),
               s.product() * sizeof(float));
      return;
    }
    gather_inputs(first, last);
    Matrix inputs{rows.data(), s.F, 1};
    if (s.embedded) {
      float* e = embedded(first);
      multiply(R, s.P, s.F, inputs, packed.embed, e, s.P, Into::Assign, packed.embed_bias);
      relu_in_place(e, (long)R * s.P);
      inputs = {e, s.P, 1};
    }
    multiply(R, s.product(), s.E, inputs, packed.input, to, s.width(), Into::Assign,
             packed.input_bias);
  }

  void step(int t) {
    float* now = gates(t);
    if (!s.lstm)
      for (int b = 0; b < lanes; b++)
        memcpy(now + (long)b * s.width() + 3 * s.P, packed.inner_bias, s.P * sizeof(float));
    multiply(lanes, s.product(), s.H, {hidden(t), s.P, 1}, packed.recurrent, now + s.recurrent(),
             s.width(), Into::Add);
    if (s.lstm)
      lstm_step(s, now, cell(t), cell(t + 1), hidden(t + 1), lanes);
    else
      gru_step(s, now, hidden(t), hidden(t + 1), lanes);
  }

  // Fills the tape.
  void forward() {
    start();
    for (int first = 0; first < s.T; first += group_steps()) {
      const int last = std::min(s.T, first + group_steps());
      input_product(first, last);
      for (int t = first; t < last; t++) step(t);
    }
  }

  // States before the first step; zeros where the layer has none.
  void start() {
    copy_state(layer.hidden0, hidden(0));
    if (s.lstm) copy_state(layer.cell0, cell(0));
  }

  void copy_state(const float* state, float* to) {
    if (state)
      copy_lanes(s, state + (long)from * s.H, to, lanes);
    else
      memset(to, 0, (long)lanes * s.P * sizeof(float));
  }

  void write(float* output, float* last_cell) {
    for (int t = 0; t < s.T; t++)
      for (int b = 0; b < lanes; b++)
        memcpy(output + ((long)t * s.L + from + b) * s.H, hidden(t + 1) + (long)b * s.P,
               s.H * sizeof(float));
    if (last_cell)
      for (int b = 0; b < lanes; b++)
        memcpy(last_cell + (long)(from + b) * s.H, cell(s.T) + (long)b * s.P,
               s.H * sizeof(float));
  }
};

// Backward through time of a block.
struct Backward : Block {
  const float* grad_last_cell;
  float* grad_input;
  Sums sums;
  std::vector<float> grad_gates, grad_hidden, grad_cell, grad_embedded;

  Backward(const Block& block, const float* grad_last_cell, float* grad_input, float* buffer)
      : Block(block), grad_last_cell(grad_last_cell), grad_input(grad_input), sums(s, buffer),
        grad_gates((long)group_steps() * lanes * s.width()), grad_hidden((long)lanes * s.P),
        grad_cell(s.lstm ? (long)lanes * s.P : 0),
        grad_embedded((long)group_steps() * lanes * rounded_up(s.E, WIDTH)) {}

  void gru_step(int t, float* grads) {
    const int P = s.P;
    const float *gate = gates(t), *before = hidden(t);
    float* grad_h = grad_hidden.data();
    for (int b = 0; b < lanes; b++, gate += 4 * P, grads += 4 * P, before += P, grad_h += P)
      for (int j = 0; j < P; j += WIDTH) {
        const Vector n = load(gate + j), r = load(gate + P + j), z = load(gate + 2 * P + j);
        const Vector grad = load(grad_h + j), h = load(before + j);
        const Vector grad_n = grad * (1.0f - z) * (1.0f - n * n);
        store(grads + j, grad_n);
        store(grads + P + j, grad_n * load(gate + 3 * P + j) * r * (1.0f - r));
        store(grads + 2 * P + j, grad * (h - n) * z * (1.0f - z));
        store(grads + 3 * P + j, grad_n * r);
        store(grad_h + j, grad * z);
      }
  }

  void lstm_step(int t, float* grads) {
    const int P = s.P;
    const float *gate = gates(t), *before = cell(t), *after = cell(t + 1);
    float *grad_h = grad_hidden.data(), *grad_c = grad_cell.data();
    for (int b = 0; b < lanes;
         b++, gate += 4 * P, grads += 4 * P, before += P, after += P, grad_h += P, grad_c += P)
      for (int j = 0; j < P; j += WIDTH) {
        const Vector i = load(gate + j), f = load(gate + P + j), g = load(gate + 2 * P + j);
        const Vector o = load(gate + 3 * P + j), squashed = hyperbolic_tangent(load(after + j));
        const Vector grad = load(grad_h + j);
        const Vector of_cell = load(grad_c + j) + grad * o * (1.0f - squashed * squashed);
        store(grads + j, of_cell * g * i * (1.0f - i));
        store(grads + P + j, of_cell * load(before + j) * f * (1.0f - f));
        store(grads + 2 * P + j, of_cell * i * (1.0f - g * g));
        store(grads + 3 * P + j, grad * squashed * o * (1.0f - o));
        store(grad_c + j, of_cell * f);
        store(grad_h + j, Vector{});
      }
  }

  // Adds the gradients of the weights over steps first, ..., last - 1, and passes on the inputs'.
  void weights(int first, int last) {
    const int R = (last - first) * lanes;
    const float* grads = grad_gates.data();
    add_column_sums(R, s.width(), grads, s.width(), sums.bias);
    add_transposed_product(s.H, s.product(), R, hidden(first), s.P, grads + s.recurrent(),
                           s.width(), sums.recurrent, s.product());
    if (s.U) return add_to_table(first, R);
    gather_inputs(first, last);
    const float* inputs = s.embedded ? embedded(first) : rows.data();
    add_transposed_product(s.E, s.product(), R, inputs, s.embedded ? s.P : s.F, grads, s.width(),
                           sums.input, s.product());
    if (!s.embedded && !grad_input) return;
    const int wide = rounded_up(s.E, WIDTH);
    float* back = grad_embedded.data();
    multiply(R, wide, s.product(), {grads, s.width(), 1}, packed.input_back, back, wide,
             Into::Assign);
    if (s.embedded)
      embedding(first, R, back);
    else
      for (int i = 0; i < R; i++)
        memcpy(grad_input + place(first * lanes + i) * s.F, back + (long)i * wide,
               s.F * sizeof(float));
  }

  void embedding(int first, int R, float* back) {
    mask(back, embedded(first), (long)R * s.P);
    add_transposed_product(s.F, s.P, R, rows.data(), s.F, back, s.P, sums.embed, s.P);
    add_column_sums(R, s.P, back, s.P, sums.embed_bias);
  }

  void add_to_table(int first, int R) {
    for (int i = 0; i < R; i++) {
      const float* grads = grad_gates.data() + (long)i * s.width();
      float* to = sums.table + (long)layer.row[place(first * lanes + i)] * s.product();
      for (int j = 0; j < s.product(); j += WIDTH) store(to + j, load(to + j) + load(grads + j));
    }
  }

  // add_grad_output(t, to) adds the gradient of the output of step t to `to` [B, P].
  template <class Add>
  void run(Add add_grad_output) {
    if (grad_last_cell) copy_lanes(s, grad_last_cell + (long)from * s.H, grad_cell.data(), lanes);
    const int group = group_steps();
    for (int t = s.T - 1; t >= 0; t--) {
      const int first = t / group * group;
      float* grads = grad_gates.data() + (long)(t - first) * lanes * s.width();
      add_grad_output(t, grad_hidden.data());
      if (s.lstm)
        lstm_step(t, grads);
      else
        gru_step(t, grads);
      multiply(lanes, s.P, s.product(), {grads + s.recurrent(), s.width(), 1},
               packed.recurrent_back, grad_hidden.data(), s.P, Into::Add);
      if (t == first) weights(first, std::min(s.T, first + group));
    }
  }

  void write(float* grad_hidden0, float* grad_cell0) {
    for (int b = 0; b < lanes; b++) {
      memcpy(grad_hidden0 + (long)(from + b) * s.H, grad_hidden.data() + (long)b * s.P,
             s.H * sizeof(float));
      if (s.lstm)
        memcpy(grad_cell0 + (long)(from + b) * s.H, grad_cell.data() + (long)b * s.P,
               s.H * sizeof(float));
    }
  }
};

// A block whose tape is a part of the layer's.
inline Block block_of(const Layer& layer, const Sizes& s, const Packed& packed, int number) {
  const int from = number * s.B, lanes = std::min(s.B, s.L - from);
  return Block(layer, s, packed, number, Tape(s, layer.tape, from, lanes));
}

}  // namespace

extern "C" {

int recurrent_blocks(const Layer* layer) {
  return (layer->lanes + layer->block - 1) / layer->block;
}

// Floats of the buffers `packed`, `tape` and the sums of gradients.
void recurrent_sizes(const Layer* layer, int64_t sizes[3]) {
  const Sizes s(*layer);
  sizes[0] = Packed(s, nullptr).size;
  sizes[1] = s.L * Tape::lane_size(s);
  sizes[2] = Sums(s, nullptr).size;
}

// Fills `packed` from the weights, and the table of the distinct inputs.
void recurrent_prepare(const Layer* layer) {
  const Sizes s(*layer);
  const Packed packed(s, layer->packed);
  const int H = s.H, P = s.P, E = s.E;
  for (int slot = 0; slot < s.gates; slot++) {
    const float* of_inputs = layer->weight_ih + (long)s.input_gate(slot) * H * E;
    const float* of_hidden = layer->weight_hh + (long)slot * H * H;
    pack_transposed(of_inputs, H, E, packed.input, s.product(), slot * P, P);
    pack_transposed(of_hidden, H, H, packed.recurrent, s.product(), slot * P, P);
    if (!layer->backward) continue;
    pack_rows(of_inputs, H, E, packed.input_back, s.product(), slot * P, P);
    pack_rows(of_hidden, H, H, packed.recurrent_back, s.product(), slot * P, P);
  }
  for (int j = 0; j < P; j++) {
    packed.embed_bias[j] = s.embedded && j < H ? layer->embedding_bias[j] : 0.0f;
    packed.inner_bias[j] = !s.lstm && j < H ? layer->bias_hh[2 * H + j] : 0.0f;
    for (int slot = 0; slot < s.gates; slot++) {
      const int gate = s.input_gate(slot);
      const bool joined = s.lstm || gate < 2;  // m of a GRU has a bias of its own
      packed.input_bias[slot * P + j] =
          j < H ? layer->bias_ih[gate * H + j] + (joined ? layer->bias_hh[gate * H + j] : 0.0f)
                : 0.0f;
    }
  }
  if (!s.embedded) return;
  pack_transposed(layer->embedding, H, s.F, packed.embed, P, 0, P);
  if (!s.U) return;
  multiply(s.U, P, s.F, {layer->x, s.F, 1}, packed.embed, packed.embedded_rows, P, Into::Assign,
           packed.embed_bias);
  relu_in_place(packed.embedded_rows, (long)s.U * P);
  multiply(s.U, s.product(), H, {packed.embedded_rows, P, 1}, packed.input, packed.table,
           s.product(), Into::Assign, packed.input_bias);
}

// Blocks first, ..., last - 1: output [T, L, H]; last_cell [L, H] of an LSTM, or null.
void recurrent_forward(const Layer* layer, int first, int last, float* output, float* last_cell) {
  const Sizes s(*layer);
  const Packed packed(s, layer->packed);
  for (int number = first; number < last; number++) {
    Block block = block_of(*layer, s, packed, number);
    block.forward();
    block.write(output, last_cell);
  }
}

// Blocks first, ..., last - 1; adds to `sums`, which starts as zeros. grad_last_cell, grad_cell0:
// of an LSTM; grad_input [T, L, F] or null.
void recurrent_backward(const Layer* layer, int first, int last, const float* grad_output,
                        const float* grad_last_cell, float* sums, float* grad_hidden0,
                        float* grad_cell0, float* grad_input) {
  const Sizes s(*layer);
  const Packed packed(s, layer->packed);
  for (int number = first; number < last; number++) {
    const Block block = block_of(*layer, s, packed, number);
    Backward backward(block, grad_last_cell, grad_input, sums);
    backward.run([&](int t, float* to) {
      for (int b = 0; b < block.lanes; b++) {
        const float* from = grad_output + ((long)t * s.L + block.from + b) * s.H;
        for (int j = 0; j < s.H; j++) to[(long)b * s.P + j] += from[j];
      }
    });
    backward.write(grad_hidden0, grad_cell0);
  }
}

// Sums of gradients -> gradients in torch's layout.
void recurrent_finish(const Layer* layer, float* buffer, float* embedding, float* embedding_bias,
                      float* weight_ih, float* weight_hh, float* bias_ih, float* bias_hh) {
  const Sizes s(*layer);
  const Packed packed(s, layer->packed);
  const Sums sums(s, buffer);
  const int H = s.H, P = s.P, N = s.product();
  if (s.U) {
    std::vector<float> back((long)s.U * P);
    add_transposed_product(H, N, s.U, packed.embedded_rows, P, sums.table, N, sums.input, N);
    multiply(s.U, P, N, {sums.table, N, 1}, packed.input_back, back.data(), P, Into::Assign);
    mask(back.data(), packed.embedded_rows, (long)s.U * P);
    add_transposed_product(s.F, P, s.U, layer->x, s.F, back.data(), P, sums.embed, P);
    add_column_sums(s.U, P, back.data(), P, sums.embed_bias);
  }
  for (int slot = 0; slot < s.gates; slot++) {
    const int gate = s.input_gate(slot);
    for (int unit = 0; unit < H; unit++) {
      for (int k = 0; k < s.E; k++)
        weight_ih[((long)gate * H + unit) * s.E + k] = sums.input[(long)k * N + slot * P + unit];
      for (int k = 0; k < H; k++)
        weight_hh[((long)slot * H + unit) * H + k] =
            sums.recurrent[(long)k * N + slot * P + unit];
      bias_ih[gate * H + unit] = sums.bias[slot * P + unit];
      bias_hh[slot * H + unit] = sums.bias[s.recurrent() + slot * P + unit];
    }
  }
  if (!s.embedded) return;
  for (int unit = 0; unit < H; unit++) {
    for (int k = 0; k < s.F; k++) embedding[(long)unit * s.F + k] = sums.embed[(long)k * P + unit];
    embedding_bias[unit] = sums.embed_bias[unit];
  }
}

// Numbers the distinct rows of x [N, F] in order of appearance: row [N], rows [capacity, F].
// Returns their count, or -1 if there are more than `capacity`.
int distinct_rows(const float* x, int count, int width, int capacity, int32_t* row, float* rows) {
  int slots = 1;
  while (slots < 4 * capacity) slots *= 2;
  std::vector<int32_t> slot_row(slots, -1);
  const long bytes = width * (long)sizeof(float);
  int found = 0;
  for (int i = 0; i < count; i++) {
    const float* value = x + (long)i * width;
    uint64_t hash = 1469598103934665603u;  // FNV-1a over words, then a multiplicative mix
    for (int k = 0; k < width; k++) {
      uint32_t bits;
      memcpy(&bits, value + k, sizeof bits);
      hash = (hash ^ bits) * 1099511628211u;
      hash ^= hash >> 29;
    }
    int slot = (hash * 0x9E3779B97F4A7C15u >> 33) & (slots - 1);
    while (slot_row[slot] >= 0 && memcmp(rows + (long)slot_row[slot] * width, value, bytes))
      slot = (slot + 1) & (slots - 1);
    if (slot_row[slot] < 0) {
      if (found == capacity) return -1;
      memcpy(rows + (long)found * width, value, bytes);
      slot_row[slot] = found++;
    }
    row[i] = slot_row[slot];
  }
  return found;
}

}  // extern "C"
