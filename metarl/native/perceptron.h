// A perceptron with one hidden layer: y = W2 relu(W1 x + b1) + b2; forward and backward.
//
// R rows, I inputs, H hidden, P = H rounded up to whole vectors, O outputs, Q = O likewise.

#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"

extern "C" {

// Mirrored by `Perceptron` in library.py.
struct Perceptron {
  int32_t rows, inputs, hidden, outputs;
  const float *weight1, *bias1, *weight2, *bias2;  // [H, I], [H], [O, H], [O]
  const float* x;                                  // [R, I]
  float *packed, *tape;                            // tape: hidden values [R, P]
};
}

namespace {

constexpr int PERCEPTRON_ROWS = 128;  // of a block

struct PerceptronParts {
  int R, I, H, O, P, Q;
  float *first, *second, *first_back, *second_back, *bias1, *bias2;  // packed
  long packed_size;
  explicit PerceptronParts(const Perceptron& net)
      : R(net.rows), I(net.inputs), H(net.hidden), O(net.outputs), P(rounded_up(H, WIDTH)),
        Q(rounded_up(O, WIDTH)) {
    Parts parts{net.packed};
    first = parts.take((long)I * P);
    second = parts.take((long)P * Q);
    first_back = parts.take((long)P * rounded_up(I, WIDTH));
    second_back = parts.take((long)O * P);
    bias1 = parts.take(P);
    bias2 = parts.take(Q);
    packed_size = parts.used;
  }
};

// Sums of gradients: [I, P], [P], [P, Q], [Q].
struct PerceptronSums {
  float *first, *bias1, *second, *bias2;
  long size;
  PerceptronSums(const PerceptronParts& p, float* buffer) {
    Parts parts{buffer};
    first = parts.take((long)p.I * p.P);
    bias1 = parts.take(p.P);
    second = parts.take((long)p.P * p.Q);
    bias2 = parts.take(p.Q);
    size = parts.used;
  }
};

// Columns beyond `width` are zeros.
inline void copy_rows(const float* from, int rows, int width, float* to, int padded) {
  for (int i = 0; i < rows; i++) {
    memcpy(to + (long)i * padded, from + (long)i * width, width * sizeof(float));
    for (int j = width; j < padded; j++) to[(long)i * padded + j] = 0;
  }
}

// Rows of x [rows, I] -> hidden [rows, P] and outputs [rows, Q].
inline void perceptron_rows(const PerceptronParts& p, int rows, const float* x, long ldx,
                            float* hidden, float* outputs) {
  multiply(rows, p.P, p.I, {x, ldx, 1}, p.first, hidden, p.P, Into::Assign, p.bias1);
  relu_in_place(hidden, (long)rows * p.P);
  multiply(rows, p.Q, p.P, {hidden, p.P, 1}, p.second, outputs, p.Q, Into::Assign, p.bias2);
}

// Gradients of outputs [rows, Q] -> `sums`, and = or += those of x [rows, I rounded up].
inline void perceptron_rows_backward(const PerceptronParts& p, int rows, const float* x, long ldx,
                                     const float* hidden, const float* of_outputs,
                                     const PerceptronSums& sums, float* of_hidden, float* of_x,
                                     long ldgx, Into into) {
  add_transposed_product(p.P, p.Q, rows, hidden, p.P, of_outputs, p.Q, sums.second, p.Q);
  add_column_sums(rows, p.Q, of_outputs, p.Q, sums.bias2);
  multiply(rows, p.P, p.O, {of_outputs, p.Q, 1}, p.second_back, of_hidden, p.P, Into::Assign);
  mask(of_hidden, hidden, (long)rows * p.P);
  add_transposed_product(p.I, p.P, rows, x, ldx, of_hidden, p.P, sums.first, p.P);
  add_column_sums(rows, p.P, of_hidden, p.P, sums.bias1);
  multiply(rows, rounded_up(p.I, WIDTH), p.P, {of_hidden, p.P, 1}, p.first_back, of_x, ldgx, into);
}

}  // namespace

extern "C" {

int perceptron_blocks(const Perceptron* net) {
  return (net->rows + PERCEPTRON_ROWS - 1) / PERCEPTRON_ROWS;
}

// Floats of the buffers `packed`, `tape` and the sums of gradients.
void perceptron_sizes(const Perceptron* net, int64_t sizes[3]) {
  const PerceptronParts p(*net);
  sizes[0] = p.packed_size;
  sizes[1] = (int64_t)p.R * p.P;
  sizes[2] = PerceptronSums(p, nullptr).size;
}

void perceptron_prepare(const Perceptron* net) {
  const PerceptronParts p(*net);
  pack_transposed(net->weight1, p.H, p.I, p.first, p.P, 0, p.P);
  // W2^T [P, Q]: the rows of padding are zeros.
  std::vector<float> padded((long)p.O * p.P);
  copy_rows(net->weight2, p.O, p.H, padded.data(), p.P);
  pack_transposed(padded.data(), p.O, p.P, p.second, p.Q, 0, p.Q);
  pack_rows(net->weight1, p.H, p.I, p.first_back, p.P, 0, p.P);
  pack_rows(padded.data(), p.O, p.P, p.second_back, p.O, 0, p.O);
  copy_rows(net->bias1, 1, p.H, p.bias1, p.P);
  copy_rows(net->bias2, 1, p.O, p.bias2, p.Q);
}

// Blocks first, ..., last - 1: y [R, O].
void perceptron_forward(const Perceptron* net, int first, int last, float* y) {
  const PerceptronParts p(*net);
  std::vector<float> outputs((long)PERCEPTRON_ROWS * p.Q);
  for (int block = first; block < last; block++) {
    const int from = block * PERCEPTRON_ROWS, rows = std::min(PERCEPTRON_ROWS, p.R - from);
    perceptron_rows(p, rows, net->x + (long)from * p.I, p.I, net->tape + (long)from * p.P,
                    outputs.data());
    for (int i = 0; i < rows; i++)
      memcpy(y + (long)(from + i) * p.O, outputs.data() + (long)i * p.Q, p.O * sizeof(float));
  }
}

// Blocks first, ..., last - 1; adds to `buffer`, which starts as zeros; grad_x [R, I].
void perceptron_backward(const Perceptron* net, int first, int last, const float* grad_y,
                         float* buffer, float* grad_x) {
  const PerceptronParts p(*net);
  const PerceptronSums sums(p, buffer);
  const int wide = rounded_up(p.I, WIDTH);
  std::vector<float> of_y((long)PERCEPTRON_ROWS * p.Q), of_hidden((long)PERCEPTRON_ROWS * p.P);
  std::vector<float> of_x((long)PERCEPTRON_ROWS * wide);
  for (int block = first; block < last; block++) {
    const int from = block * PERCEPTRON_ROWS, rows = std::min(PERCEPTRON_ROWS, p.R - from);
    copy_rows(grad_y + (long)from * p.O, rows, p.O, of_y.data(), p.Q);
    perceptron_rows_backward(p, rows, net->x + (long)from * p.I, p.I,
                             net->tape + (long)from * p.P, of_y.data(), sums, of_hidden.data(),
                             of_x.data(), wide, Into::Assign);
    for (int i = 0; i < rows; i++)
      memcpy(grad_x + (long)(from + i) * p.I, of_x.data() + (long)i * wide, p.I * sizeof(float));
  }
}

// Sums of gradients -> gradients in torch's layout.
void perceptron_finish(const Perceptron* net, float* buffer, float* weight1, float* bias1,
                       float* weight2, float* bias2) {
  const PerceptronParts p(*net);
  const PerceptronSums sums(p, buffer);
  for (int unit = 0; unit < p.H; unit++) {
    for (int k = 0; k < p.I; k++)
      weight1[(long)unit * p.I + k] = sums.first[(long)k * p.P + unit];
    bias1[unit] = sums.bias1[unit];
  }
  for (int out = 0; out < p.O; out++) {
    for (int unit = 0; unit < p.H; unit++)
      weight2[(long)out * p.H + unit] = sums.second[(long)unit * p.Q + out];
    bias2[out] = sums.bias2[out];
  }
}

}  // extern "C"
