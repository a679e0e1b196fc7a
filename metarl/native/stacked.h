// A multilayer perceptron with separate parameters for every task: forward, backward, and the
// derivatives of both along a direction of the parameters. The formulas are those of
// metarl/networks/stacked_mlp.py.
//
// N tasks, M samples of each, L layers, R outputs and constants. A block of samples of one task
// goes through all layers while it is in the cache. Values of hidden layers are kept in tapes.

#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "vectors.h"

extern "C" {

// Mirrored by `StackedNet` in library.py.
struct StackedNet {
  int32_t tasks, samples, layers, constants, relu, learn_constants;
  int64_t size;             // parameters of a task
  const int64_t* sizes;     // [L + 1]: inputs, hidden widths, outputs
  const float *params, *x;  // [N, size], [M, N, inputs]
  float* features;          // tape; null: only dist_params are wanted
};

// Of the first derivative, for the second. Mirrored by `StackedSecond` in library.py.
struct StackedSecond {
  const float* direction;    // [N, size]
  const float* tangents;     // tape: changes of the features
  const float* cotangent;    // [M, N, R]
  const float* by_features;  // tape: derivatives by the features
};
}

namespace {

constexpr int STACKED_ROWS = 96;  // of a block

// Layer l has size[l] inputs and size[l + 1] outputs; wide: rounded up to whole vectors.
struct StackedShape {
  int layers, widest = 0;
  std::vector<int> size, wide;
  std::vector<long> weight, before;  // where its weights begin; floats of a sample before its inputs
  explicit StackedShape(const StackedNet& net) : layers(net.layers) {
    long weights = 0, values = 0;
    for (int l = 0; l <= layers; l++) {
      size.push_back((int)net.sizes[l]);
      wide.push_back(rounded_up(size[l], WIDTH));
      weight.push_back(weights);
      before.push_back(values);
      if (l < layers) weights += (net.sizes[l] + 1) * net.sizes[l + 1];
      if (l) values += wide[l];
      widest = std::max(widest, wide[l]);
    }
  }
  long bias(int l) const { return weight[l] + (long)size[l] * size[l + 1]; }
  long tape() const { return before[layers]; }  // floats of a sample
  // Whether the last layer's products are sums over whole vectors of features.
  bool few_outputs() const {
    return layers > 1 && 4 * size[layers] <= WIDTH && size[layers - 1] == wide[layers - 1];
  }
};

// Some samples of one task.
struct StackedBlock {
  int task, row, rows;
};

// Values that the next block reads, fetched into the cache a few at a time between products.
struct Ahead {
  std::vector<std::pair<const float*, long>> ranges;
  // As much as memory can deliver during a tile's product with [inner, columns].
  void fetch(int inner, int columns) {
    for (int line = 0; line < inner * columns / 64 && !ranges.empty(); line++) {
      auto& [at, left] = ranges.back();
      __builtin_prefetch(at, 0, 2);
      at += 16;
      if ((left -= 16) <= 0) ranges.pop_back();
    }
  }
  void multiply(int rows, int columns, int inner, Matrix a, const float* packed, float* c, Into into,
                const float* bias = nullptr) {
    for (int i = 0; i < rows; i += TILE_ROWS) {
      fetch(inner, columns);
      ::multiply(std::min(TILE_ROWS, rows - i), columns, inner, {a.at + i * a.row, a.row, a.column},
                 packed, c + (long)i * columns, columns, into, bias);
    }
  }
  void add_transposed_product(int rows, int columns, int inner, const float* a, long lda,
                              const float* b, float* c) {
    for (int i = 0; i < rows; i += TILE_ROWS) {
      fetch(inner, columns);
      ::add_transposed_product(std::min(TILE_ROWS, rows - i), columns, inner, a + i, lda, b,
                               columns, c + (long)i * columns, columns);
    }
  }
};

inline float sum(Vector v) {
  typedef float Quarter __attribute__((vector_size(16), aligned(4)));
  float lanes[WIDTH];
  store(lanes, v);
  Quarter total{};
  for (int i = 0; i < WIDTH; i += 4) total += *(const Quarter*)(lanes + i);
  return (total[0] + total[1]) + (total[2] + total[3]);
}

// Weights of one task, packed; `transposed`: of the backward pass.
struct StackedWeights {
  const StackedShape& s;
  std::vector<float> buffer;
  std::vector<float*> weight, bias;
  StackedWeights(const StackedShape& shape, const float* params, bool transposed) : s(shape) {
    if (!params) return;
    long total = 0;
    for (int l = 0; l < s.layers; l++) total += (long)(s.wide[l] + 1) * s.wide[l + 1];
    buffer.resize(total);
    float* next = buffer.data();
    for (int l = 0; l < s.layers; l++) {
      const float* from = params + s.weight[l];
      weight.push_back(next);
      bias.push_back(next += (long)s.wide[l] * s.wide[l + 1]);
      memcpy(next, params + s.bias(l), s.size[l + 1] * sizeof(float));
      next += s.wide[l + 1];
      if (transposed)
        pack_transposed(from, s.size[l], s.size[l + 1], weight[l], s.wide[l], 0, s.wide[l]);
      else if (l == s.layers - 1 && s.few_outputs())
        for (int k = 0; k < s.size[l]; k++)
          for (int j = 0; j < s.size[l + 1]; j++)
            weight[l][(long)j * s.wide[l] + k] = from[(long)k * s.size[l + 1] + j];
      else
        pack_rows(from, s.size[l], s.size[l + 1], weight[l], s.size[l], 0, s.size[l]);
    }
  }
  // out [rows, wide] = inputs times the weights of layer l, plus bias; or, to add, without bias.
  void forward(int l, int rows, Matrix in, float* out, Into into, Ahead& ahead) const {
    const int wide = s.wide[l + 1];
    if (l < s.layers - 1 || !s.few_outputs())
      return ahead.multiply(rows, wide, s.size[l], in, weight[l], out, into,
                            into == Into::Assign ? bias[l] : nullptr);
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < s.size[l + 1]; j++) {
        Vector total{};
        for (int k = 0; k < s.wide[l]; k += WIDTH)
          total += load(in.at + i * in.row + k) * load(weight[l] + (long)j * s.wide[l] + k);
        float& to = out[(long)i * wide + j];
        to = sum(total) + (into == Into::Add ? to : bias[l][j]);
      }
  }
};

// Sums of gradients of one task. Those of weights are [inputs, outputs] in the first layer and
// [outputs, inputs] in the others: few inputs and few outputs do not fill whole vectors.
struct StackedSums {
  const StackedShape& s;
  std::vector<float> buffer;
  std::vector<float*> weight, bias;
  explicit StackedSums(const StackedShape& shape) : s(shape) {
    const auto size = [&](int l) { return (long)s.size[l ? l + 1 : 0] * s.wide[l ? l : 1]; };
    long total = 0;
    for (int l = 0; l < s.layers; l++) total += size(l) + s.wide[l + 1];
    buffer.resize(total);
    float* next = buffer.data();
    for (int l = 0; l < s.layers; l++) {
      weight.push_back(next);
      bias.push_back(next += size(l));
      next += s.wide[l + 1];
    }
  }
  // Adds outer products of inputs and derivatives by outputs.
  void add(int l, int rows, Matrix in, const float* delta, Ahead& ahead) const {
    if (l)
      ahead.add_transposed_product(s.size[l + 1], s.wide[l], rows, delta, s.wide[l + 1], in.at,
                                   weight[l]);
    else
      ahead.add_transposed_product(s.size[0], s.wide[1], rows, in.at, in.row, delta, weight[0]);
  }
  void write(float* grad) const {
    for (int l = 0; l < s.layers; l++) {
      const long row = l ? 1 : s.wide[1], column = l ? s.wide[l] : 1;
      float* to = grad + s.weight[l];
      for (int k = 0; k < s.size[l]; k++)
        for (int j = 0; j < s.size[l + 1]; j++) *to++ = weight[l][k * row + j * column];
      memcpy(to, bias[l], s.size[l + 1] * sizeof(float));
    }
  }
};

// Times the derivative of the activation with output h; like torch's where that is NaN.
inline Vector through(bool relu, Vector value, Vector h) {
  if (relu) return h <= Vector{} ? Vector{} : value;
  return value * (1.0f - h * h);
}

struct StackedPass {
  const StackedNet& net;
  StackedShape s;
  int outputs;
  explicit StackedPass(const StackedNet* given)
      : net(*given), s(*given), outputs(s.size[given->layers]) {}

  // Calls begin(task, blocks) for every task in blocks first, ..., last - 1; `blocks` calls its
  // argument for each of its blocks.
  template <class Begin>
  void each_task(int first, int last, Begin begin) const {
    const int per_task = (net.samples + STACKED_ROWS - 1) / STACKED_ROWS;
    while (first < last) {
      const int task = first / per_task, end = std::min(last, (task + 1) * per_task);
      begin(task, [&](auto work) {
        for (; first < end; first++) {
          const int row = first % per_task * STACKED_ROWS;
          work(StackedBlock{task, row, std::min(STACKED_ROWS, net.samples - row)});
        }
      });
    }
  }
  // The inputs of layer l > 0 in a tape: [rows, wide].
  float* at(const float* tape, int l, const StackedBlock& b) const {
    const long samples = (long)net.tasks * net.samples, row = (long)b.task * net.samples + b.row;
    return const_cast<float*>(tape) + s.before[l] * samples + row * s.wide[l];
  }
  Matrix inputs(int l, const StackedBlock& b) const {
    if (l) return {at(net.features, l, b), s.wide[l], 1};
    const long row = (long)net.tasks * s.size[0];
    return {net.x + b.row * row + (long)b.task * s.size[0], row, 1};
  }
  // The next block's part of a tape.
  void fetch(const float* tape, const StackedBlock& b, Ahead& ahead) const {
    const long rest = (long)(net.tasks - b.task) * net.samples - b.row - b.rows;
    for (int l = 1; l < s.layers && rest > 0; l++)
      ahead.ranges.emplace_back(at(tape, l, b) + (long)b.rows * s.wide[l],
                                std::min<long>(rest, STACKED_ROWS) * s.wide[l]);
  }
  // A sample's row of [M, N, R].
  template <class Float>
  Float* row(Float* values, const StackedBlock& b, int i) const {
    return values + ((long)(b.row + i) * net.tasks + b.task) * (outputs + net.constants);
  }
  void write(const float* values, const float* constants, const StackedBlock& b, float* to) const {
    for (int i = 0; i < b.rows; i++) {
      float* out = row(to, b, i);
      for (int j = 0; j < outputs; j++) *out++ = values[(long)i * s.wide[s.layers] + j];
      for (int c = 0; c < net.constants; c++) *out++ = constants ? constants[c] : 0.0f;
    }
  }
  void read(const float* from, const StackedBlock& b, float* values) const {
    for (int i = 0; i < b.rows; i++) {
      float* to = values + (long)i * s.wide[s.layers];
      for (int j = 0; j < s.wide[s.layers]; j += WIDTH) store(to + j, Vector{});
      for (int j = 0; j < outputs; j++) to[j] = row(from, b, i)[j];
    }
  }
  const float* params(const float* all, int task) const { return all + task * net.size; }
  const float* constants(const float* all, int task) const {
    return params(all, task + 1) - net.constants;
  }
  void activate(float* values, long count) const {
    if (net.relu) return relu_in_place(values, count);
    for (long i = 0; i < count; i += WIDTH)
      store(values + i, hyperbolic_tangent(load(values + i)));
  }
};

}  // namespace

extern "C" {

int stacked_blocks(const StackedNet* net) {
  return net->tasks * ((net->samples + STACKED_ROWS - 1) / STACKED_ROWS);
}

// Floats of a tape.
int64_t stacked_tape(const StackedNet* net) {
  return StackedShape(*net).tape() * net->tasks * net->samples;
}

// Blocks first, ..., last - 1 of dist_params [M, N, R].
void stacked_forward(const StackedNet* net, int first, int last, float* dist_params) {
  const StackedPass pass(net);
  const StackedShape& s = pass.s;
  const long block = (long)STACKED_ROWS * s.widest;
  std::vector<float> buffer(2 * block);
  Ahead ahead;
  pass.each_task(first, last, [&](int task, auto blocks) {
    const StackedWeights w(s, pass.params(net->params, task), false);
    blocks([&](const StackedBlock& b) {
      float *out = nullptr, *free = buffer.data(), *next = free + block;
      for (int l = 0; l < s.layers; l++) {
        const Matrix in = l ? Matrix{out, s.wide[l], 1} : pass.inputs(0, b);
        const bool hidden = l < s.layers - 1;
        out = hidden && net->features ? pass.at(net->features, l + 1, b) : free;
        w.forward(l, b.rows, in, out, Into::Assign, ahead);
        if (hidden) pass.activate(out, (long)b.rows * s.wide[l + 1]);
        std::swap(free, next);
      }
      pass.write(out, pass.constants(net->params, task), b, dist_params);
    });
  });
}

// Blocks of changes [M, N, R] of dist_params along a direction [N, size]; those of the features
// are kept where `tape` is not null.
void stacked_tangents(const StackedNet* net, int first, int last, const float* direction,
                      float* tape, float* dist_params) {
  const StackedPass pass(net);
  const StackedShape& s = pass.s;
  const long block = (long)STACKED_ROWS * s.widest;
  std::vector<float> buffer(2 * block);
  Ahead ahead;
  pass.each_task(first, last, [&](int task, auto blocks) {
    const StackedWeights w(s, pass.params(net->params, task), false);
    const StackedWeights v(s, pass.params(direction, task), false);
    blocks([&](const StackedBlock& b) {
      float *out = nullptr, *free = buffer.data(), *next = free + block;
      ahead.ranges.clear();
      pass.fetch(net->features, b, ahead);
      for (int l = 0; l < s.layers; l++) {
        const float* change = out;
        out = tape && l < s.layers - 1 ? pass.at(tape, l + 1, b) : free;
        v.forward(l, b.rows, pass.inputs(l, b), out, Into::Assign, ahead);
        if (l) w.forward(l, b.rows, {change, s.wide[l], 1}, out, Into::Add, ahead);
        if (l == s.layers - 1) break;
        const float* h = pass.at(net->features, l + 1, b);
        for (long i = 0; i < (long)b.rows * s.wide[l + 1]; i += WIDTH)
          store(out + i, through(net->relu, load(out + i), load(h + i)));
        std::swap(free, next);
      }
      pass.write(out, net->learn_constants ? pass.constants(direction, task) : nullptr, b,
                 dist_params);
    });
  });
}

// From the derivative [M, N, R] of a loss by dist_params to the gradients [N, size] of the tasks in
// blocks first, ..., last - 1, summed over these; adds to those of constants. Derivatives by the
// features are kept where `tape` is not null. With `second`: the change of that gradient along a
// direction, from the change of the derivative.
void stacked_backward(const StackedNet* net, int first, int last, const float* cotangent,
                      float* tape, const StackedSecond* second, float* grads) {
  const StackedPass pass(net);
  const StackedShape& s = pass.s;
  const bool relu = net->relu;
  const long block = (long)STACKED_ROWS * s.widest;
  std::vector<float> buffer(4 * block);
  Ahead ahead;
  pass.each_task(first, last, [&](int task, auto blocks) {
    const StackedWeights w(s, pass.params(net->params, task), true);
    const StackedWeights v(s, second ? pass.params(second->direction, task) : nullptr, true);
    const StackedSums sums(s);
    float* of_constants = const_cast<float*>(pass.constants(grads, task));
    blocks([&](const StackedBlock& b) {
      float *delta = buffer.data(), *next = delta + block;
      float *first_delta = next + block, *first_next = first_delta + block;
      ahead.ranges.clear();
      pass.fetch(net->features, b, ahead);
      pass.read(cotangent, b, delta);
      if (second) {
        pass.fetch(second->tangents, b, ahead);
        pass.fetch(second->by_features, b, ahead);
        pass.read(second->cotangent, b, first_delta);
      }
      for (int i = 0; i < b.rows && net->learn_constants; i++)
        for (int c = 0; c < net->constants; c++)
          of_constants[c] += pass.row(cotangent, b, i)[pass.outputs + c];
      for (int l = s.layers - 1; l >= 0; l--) {
        const int wide = s.wide[l], after = s.wide[l + 1];
        const long count = (long)b.rows * wide;
        const Matrix h = pass.inputs(l, b);
        sums.add(l, b.rows, h, delta, ahead);
        add_column_sums(b.rows, after, delta, after, sums.bias[l]);
        if (!l) break;
        float* by = tape ? pass.at(tape, l, b) : next;
        ahead.multiply(b.rows, wide, s.size[l + 1], {delta, after, 1}, w.weight[l], by,
                       Into::Assign);
        if (second) {
          const float* change = pass.at(second->tangents, l, b);
          const float* first_by = pass.at(second->by_features, l, b);
          sums.add(l, b.rows, {change, wide, 1}, first_delta, ahead);
          ahead.multiply(b.rows, wide, s.size[l + 1], {first_delta, after, 1}, v.weight[l], by,
                         Into::Add);
          for (long i = 0; i < count; i += WIDTH) {
            const Vector f = load(h.at + i), g = load(first_by + i);
            const Vector value = through(relu, load(by + i), f);
            store(next + i, relu ? value : value - 2.0f * f * g * load(change + i));
            store(first_next + i, through(relu, g, f));
          }
          std::swap(first_delta, first_next);
        } else {
          for (long i = 0; i < count; i += WIDTH)
            store(next + i, through(relu, load(by + i), load(h.at + i)));
        }
        std::swap(delta, next);
      }
    });
    sums.write(const_cast<float*>(pass.params(grads, task)));
  });
}

}  // extern "C"
