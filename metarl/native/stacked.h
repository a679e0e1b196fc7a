// A multilayer perceptron with separate parameters for every task: forward, backward, and the
// derivatives of both along a direction of the parameters. The formulas are those of
// metarl/networks/stacked_mlp.py.
//
// N tasks, M samples of each, L layers, R outputs and constants. A block of samples of one task
// goes through all layers while it is in the cache. Values of hidden layers are kept with rows
// rounded up to whole vectors.

#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"

extern "C" {

// Mirrored by `StackedNet` in library.py.
struct StackedNet {
  int32_t tasks, samples, layers, constants, relu, learn_constants;
  int64_t size;            // parameters of a task
  const int64_t* sizes;    // [L + 1]: inputs, hidden widths, outputs
  const float *params, *x;  // [N, size], [M, N, inputs]
  float* features;         // a tape, or null
};
}

namespace {

constexpr int STACKED_ROWS = 96;  // of a block

struct StackedShape {
  std::vector<int> size, wide;
  std::vector<long> weight, tape;  // where a layer's weights begin, and the values before it
  int widest = 0;
  explicit StackedShape(const StackedNet& net) {
    long weights = 0, values = 0;
    for (int l = 0; l <= net.layers; l++) {
      size.push_back((int)net.sizes[l]);
      wide.push_back(rounded_up(size[l], WIDTH));
      weight.push_back(weights);
      tape.push_back(values);
      if (l < net.layers) weights += (net.sizes[l] + 1) * net.sizes[l + 1];
      if (l) values += wide[l];
      widest = std::max(widest, wide[l]);
    }
  }
  long bias(int l) const { return weight[l] + (long)size[l] * size[l + 1]; }
  long tape_size() const { return tape.back(); }  // of a sample
};

// Values of the hidden layers 1, ..., L - 1 of many samples: [rows, wide] of one after the other.
struct StackedTape {
  const StackedShape& s;
  float* base;
  long rows;
  float* at(int l, long row) const { return base + s.tape[l] * rows + row * s.wide[l]; }
};

// The weights of one task, packed.
struct StackedWeights {
  std::vector<float> buffer;
  std::vector<const float*> weight, bias;
  StackedWeights(const StackedShape& s, const float* params, bool transposed) {
    const int layers = (int)s.size.size() - 1;
    long total = 0;
    for (int l = 0; l < layers; l++)
      total += (long)(s.wide[l] + 1) * s.wide[l + 1];
    buffer.resize(total);
    float* next = buffer.data();
    for (int l = 0; l < layers; l++) {
      weight.push_back(next);
      bias.push_back(next + (long)s.wide[l] * s.wide[l + 1]);
      const float* from = params + s.weight[l];
      if (transposed)
        pack_transposed(from, s.size[l], s.size[l + 1], next, s.wide[l], 0, s.wide[l]);
      else
        pack_rows(from, s.size[l], s.size[l + 1], next, s.size[l], 0, s.size[l]);
      next += (long)s.wide[l] * s.wide[l + 1];
      memcpy(next, params + s.bias(l), s.size[l + 1] * sizeof(float));
      next += s.wide[l + 1];
    }
  }
};

// Some samples of one task.
struct StackedBlock {
  int task, row, rows;
};

// Blocks first, ..., last - 1, task by task: begin(task), which returns what is done per block.
template <class Begin>
inline void each_task(const StackedNet& net, int first, int last, Begin begin) {
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

// Times the derivative of the activation with output h, as torch has it for NaN.
inline Vector through(bool relu, Vector value, Vector h) {
  if (relu) return h <= Vector{} ? Vector{} : value;
  return value * (1.0f - h * h);
}

struct StackedPass {
  const StackedNet& net;
  StackedShape s;
  explicit StackedPass(const StackedNet& given) : net(given), s(given) {}

  int outputs() const { return s.size[net.layers]; }

  // Samples of a tape of all samples, or the first of a buffer for one block.
  float* at(float* tape, std::vector<float>& buffer, int l, const StackedBlock& b) const {
    if (tape) return StackedTape{s, tape, (long)net.tasks * net.samples}.at(l, (long)b.task * net.samples + b.row);
    return StackedTape{s, buffer.data(), STACKED_ROWS}.at(l, 0);
  }
  const float* kept(const float* tape, int l, const StackedBlock& b) const {
    return StackedTape{s, (float*)tape, (long)net.tasks * net.samples}.at(l, (long)b.task * net.samples + b.row);
  }
  Matrix input(int l, const StackedBlock& b) const {
    if (l) return {kept(net.features, l, b), s.wide[l], 1};
    const long row = (long)net.tasks * s.size[0];
    return {net.x + b.row * row + (long)b.task * s.size[0], row, 1};
  }
  long beside(const StackedBlock& b, int i) const {  // a row of [M, N, R]
    return ((long)(b.row + i) * net.tasks + b.task) * (outputs() + net.constants);
  }
  void write(const float* values, const float* constants, const StackedBlock& b, float* to) const {
    for (int i = 0; i < b.rows; i++) {
      float* row = to + beside(b, i);
      memcpy(row, values + (long)i * s.wide[net.layers], outputs() * sizeof(float));
      for (int c = 0; c < net.constants; c++) row[outputs() + c] = constants ? constants[c] : 0.0f;
    }
  }
  void read(const float* from, const StackedBlock& b, float* values) const {
    const int wide = s.wide[net.layers];
    for (int i = 0; i < b.rows; i++) {
      memcpy(values + (long)i * wide, from + beside(b, i), outputs() * sizeof(float));
      for (int j = outputs(); j < wide; j++) values[(long)i * wide + j] = 0.0f;
    }
  }
  const float* constants(const float* params) const { return params + net.size - net.constants; }
};

inline void activate(bool relu, float* values, long count) {
  if (relu) return relu_in_place(values, count);
  for (long i = 0; i < count; i += WIDTH)
    store(values + i, hyperbolic_tangent(load(values + i)));
}

// Sums of gradients of one task.
struct StackedSums {
  std::vector<float> buffer;
  std::vector<float*> weight, bias;
  explicit StackedSums(const StackedShape& s) {
    const int layers = (int)s.size.size() - 1;
    long total = 0;
    for (int l = 0; l < layers; l++) total += (long)(s.size[l] + 1) * s.wide[l + 1];
    buffer.assign(total, 0.0f);
    float* next = buffer.data();
    for (int l = 0; l < layers; l++) {
      weight.push_back(next);
      bias.push_back(next += (long)s.size[l] * s.wide[l + 1]);
      next += s.wide[l + 1];
    }
  }
  void write(const StackedShape& s, float* grad) const {
    for (size_t l = 0; l < weight.size(); l++)
      for (int k = 0; k <= s.size[l]; k++)
        memcpy(grad + s.weight[l] + (long)k * s.size[l + 1], weight[l] + (long)k * s.wide[l + 1],
               s.size[l + 1] * sizeof(float));
  }
};

}  // namespace

extern "C" {

int stacked_blocks(const StackedNet* net) {
  return net->tasks * ((net->samples + STACKED_ROWS - 1) / STACKED_ROWS);
}

// Floats of a tape.
int64_t stacked_tape(const StackedNet* net) {
  return StackedShape(*net).tape_size() * net->tasks * net->samples;
}

// Blocks first, ..., last - 1 of dist_params [M, N, R]; keeps the features where there is a tape.
void stacked_forward(const StackedNet* net, int first, int last, float* dist_params) {
  const StackedPass pass(*net);
  const StackedShape& s = pass.s;
  std::vector<float> outputs((long)STACKED_ROWS * s.wide[net->layers]), buffer;
  if (!net->features) buffer.resize(s.tape_size() * STACKED_ROWS);
  each_task(*net, first, last, [&](int task, auto blocks) {
    const float* params = net->params + task * net->size;
    const StackedWeights w(s, params, false);
    blocks([&](const StackedBlock& b) {
      Matrix in = pass.input(0, b);
      for (int l = 0; l < net->layers; l++) {
        const bool hidden = l + 1 < net->layers;
        float* out = hidden ? pass.at(net->features, buffer, l + 1, b) : outputs.data();
        const int wide = s.wide[l + 1];
        multiply(b.rows, wide, s.size[l], in, w.weight[l], out, wide, Into::Assign, w.bias[l]);
        if (hidden) activate(net->relu, out, (long)b.rows * wide);
        in = {out, wide, 1};
      }
      pass.write(outputs.data(), pass.constants(params), b, dist_params);
    });
  });
}

// Changes [M, N, R] of dist_params along a direction [N, size]; those of the features are kept
// where `tape` is one.
void stacked_tangents(const StackedNet* net, int first, int last, const float* direction,
                      float* tape, float* dist_params) {
  const StackedPass pass(*net);
  const StackedShape& s = pass.s;
  std::vector<float> outputs((long)STACKED_ROWS * s.wide[net->layers]), buffer;
  if (!tape) buffer.resize(s.tape_size() * STACKED_ROWS);
  each_task(*net, first, last, [&](int task, auto blocks) {
    const float* along = direction + task * net->size;
    const StackedWeights w(s, net->params + task * net->size, false), v(s, along, false);
    blocks([&](const StackedBlock& b) {
      const float* change = nullptr;
      for (int l = 0; l < net->layers; l++) {
        const bool hidden = l + 1 < net->layers;
        float* out = hidden ? pass.at(tape, buffer, l + 1, b) : outputs.data();
        const int wide = s.wide[l + 1], inner = s.size[l];
        multiply(b.rows, wide, inner, pass.input(l, b), v.weight[l], out, wide, Into::Assign,
                 v.bias[l]);
        if (l)
          multiply(b.rows, wide, inner, {change, s.wide[l], 1}, w.weight[l], out, wide, Into::Add);
        if (!hidden) break;
        const float* h = pass.kept(net->features, l + 1, b);
        for (long i = 0; i < (long)b.rows * wide; i += WIDTH)
          store(out + i, through(net->relu, load(out + i), load(h + i)));
        change = out;
      }
      pass.write(outputs.data(), net->learn_constants ? pass.constants(along) : nullptr, b,
                 dist_params);
    });
  });
}

// What the second derivative needs besides `StackedNet`; all null for the first.
struct StackedSecond {
  const float *direction, *tangents;    // [N, size]; tape
  const float *cotangent, *by_features;  // of the first derivative: [M, N, R]; tape
};

// Gradients grad [N, size] of the tasks of blocks first, ..., last - 1, from the derivative
// [M, N, R] of a loss by dist_params; the derivatives by features are kept where `tape` is one.
// With `second`: the derivative of that along a direction.
void stacked_backward(const StackedNet* net, int first, int last, const float* cotangent,
                      float* tape, const StackedSecond* second, float* grad) {
  const StackedPass pass(*net);
  const StackedShape& s = pass.s;
  const int layers = net->layers;
  const bool relu = net->relu;
  const long block = (long)STACKED_ROWS * s.widest;
  std::vector<float> buffers(4 * block), by_feature(block);
  each_task(*net, first, last, [&](int task, auto blocks) {
    const StackedWeights w(s, net->params + task * net->size, true);
    const StackedWeights v(s, (second ? second->direction : net->params) + task * net->size, true);
    const StackedSums sums(s);
    float* const of_constants = grad + (task + 1) * net->size - net->constants;
    blocks([&](const StackedBlock& b) {
      float *delta = buffers.data(), *next = delta + block;           // of this derivative
      float *first_delta = next + block, *first_next = first_delta + block;  // of the first one
      pass.read(cotangent, b, delta);
      if (second) pass.read(second->cotangent, b, first_delta);
      for (int c = 0; c < net->constants * net->learn_constants; c++)
        for (int i = 0; i < b.rows; i++)
          of_constants[c] += cotangent[pass.beside(b, i) + pass.outputs() + c];
      for (int l = layers - 1; l >= 0; l--) {
        const int wide = s.wide[l], after = s.wide[l + 1];
        const Matrix h = pass.input(l, b);
        add_transposed_product(s.size[l], after, b.rows, h.at, h.row, delta, after, sums.weight[l],
                               after);
        add_column_sums(b.rows, after, delta, after, sums.bias[l]);
        if (!l) break;
        float* by = tape ? (float*)pass.kept(tape, l, b) : by_feature.data();
        multiply(b.rows, wide, s.size[l + 1], {delta, after, 1}, w.weight[l], by, wide,
                 Into::Assign);
        const long count = (long)b.rows * wide;
        if (second) {
          const float* change = pass.kept(second->tangents, l, b);
          const float* first_by = pass.kept(second->by_features, l, b);
          add_transposed_product(s.size[l], after, b.rows, change, wide, first_delta, after,
                                 sums.weight[l], after);
          multiply(b.rows, wide, s.size[l + 1], {first_delta, after, 1}, v.weight[l], by, wide,
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
    sums.write(s, grad + task * net->size);
  });
}

}  // extern "C"
