// The log-probability and entropy of categorical actions, the loss of PPO, and steps of Adam.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

// Some rows as a vector; those beyond `count` repeat the last, so that all numbers are harmless.
inline Vector gather(const float* from, long stride, int count) {
  Vector value{};
  for (int i = 0; i < WIDTH; i++) value[i] = from[std::min(i, count - 1) * stride];
  return value;
}

inline void scatter(Vector value, float* to, long stride, int count) {
  for (int i = 0; i < count; i++) to[i * stride] = value[i];
}

}  // namespace

extern "C" {

// Logits [R, A], of which each row takes `stride` numbers, -> log_probs [R, A] likewise, and for
// each row the log-probability of its action and the entropy.
void categorical_forward(int rows, int actions, long stride, const float* logits,
                         const int64_t* action, float* log_probs, float* log_prob,
                         float* entropy) {
  std::vector<Vector> shifted(actions);
  for (int first = 0; first < rows; first += WIDTH) {
    const int count = std::min(WIDTH, rows - first);
    Vector largest{};
    for (int a = 0; a < actions; a++) {
      const Vector logit = gather(logits + first * stride + a, stride, count);
      largest = a && !(logit > largest) ? largest : logit;
      shifted[a] = logit;
    }
    Vector total{}, weighted{}, logarithm{};
    for (int a = 0; a < actions; a++) {
      shifted[a] -= largest;
      const Vector p = exponential(shifted[a]);
      total += p;
      weighted += p * shifted[a];
    }
    for (int i = 0; i < WIDTH; i++) logarithm[i] = std::log(total[i]);
    for (int a = 0; a < actions; a++)
      scatter(shifted[a] - logarithm, log_probs + first * stride + a, stride, count);
    scatter(logarithm - weighted / total, entropy + first, 1, count);
    for (int i = first; i < first + count; i++)
      log_prob[i] = log_probs[i * stride + action[i]];
  }
}

// d log p[b] / d logit[a] = [a = b] - p[a],   d entropy / d logit[a] = - p[a] (log p[a] + entropy)
void categorical_backward(int rows, int actions, long stride, const float* log_probs,
                          const int64_t* action, const float* entropy, const float* grad_log_prob,
                          const float* grad_entropy, float* grad_logits) {
  for (int first = 0; first < rows; first += WIDTH) {
    const int count = std::min(WIDTH, rows - first);
    const Vector of_log_prob = gather(grad_log_prob + first, 1, count);
    const Vector of_entropy = gather(grad_entropy + first, 1, count);
    const Vector total = gather(entropy + first, 1, count);
    for (int a = 0; a < actions; a++) {
      const Vector log_p = gather(log_probs + first * stride + a, stride, count);
      scatter(-exponential(log_p) * (of_log_prob + of_entropy * (log_p + total)),
              grad_logits + first * stride + a, stride, count);
    }
    for (int i = first; i < first + count; i++)
      grad_logits[i * stride + action[i]] += grad_log_prob[i];
  }
}

// Means over valid rows of PPO's terms, and gradients of their weighted sum
//
//   - min(r A, clamp(r, 1 - c, 1 + c) A) + value_coef (v - v_target)^2 - entropy_coef entropy
//
// where `weight` is the number of valid rows, these or more. Adds to `means`: policy loss, value
// loss, entropy, approximate KL, clip fraction.
void surrogate(int rows, const float* log_prob, const float* old_log_prob, const float* advantage,
               const float* value, const float* value_target, const float* entropy,
               const float* valid, double weight, float clip_range, float value_coef,
               float entropy_coef, double means[5], float* grad_log_prob, float* grad_value, float* grad_entropy) {
  double sums[5] = {};
  const float share = (float)(1.0 / weight);
  for (int first = 0; first < rows; first += WIDTH) {
    const int count = std::min(WIDTH, rows - first);
    const auto at = [&](const float* values) { return gather(values + first, 1, count); };
    const Vector log_ratio = at(log_prob) - at(old_log_prob), ratio = exponential(log_ratio);
    const Vector low = all(1.0f - clip_range), high = all(1.0f + clip_range);
    const Vector above = ratio > high ? high : ratio, cut = above < low ? low : above;
    const Vector gain = ratio * at(advantage), cut_gain = cut * at(advantage);
    const Vector error = at(value) - at(value_target), weights = at(valid);
    const Integers outside = ratio > high || ratio < low;  // false for NaN, which must go on
    const Vector moves = cut_gain < gain && outside ? Vector{} : gain, step = weights * share;
    scatter(-moves * step, grad_log_prob + first, 1, count);
    scatter(2.0f * value_coef * error * step, grad_value + first, 1, count);
    scatter(-entropy_coef * step, grad_entropy + first, 1, count);
    const Vector terms[5] = {-(cut_gain < gain ? cut_gain : gain), error * error, at(entropy),
                             ratio - 1.0f - log_ratio, outside ? all(1.0f) : Vector{}};
    for (int term = 0; term < 5; term++)
      for (int i = 0; i < count; i++) sums[term] += weights[i] * terms[term][i];
  }
  for (int term = 0; term < 5; term++) means[term] += sums[term] / weight;
}

// The norm of all gradients together.
double gradient_norm(int count, const float* const* grads, const int64_t* sizes) {
  double total = 0;
  for (int p = 0; p < count; p++) {
    Vector sum{};
    int64_t i = 0;
    for (; i + WIDTH <= sizes[p]; i += WIDTH) sum += load(grads[p] + i) * load(grads[p] + i);
    for (int k = 0; k < WIDTH; k++) total += sum[k];
    for (; i < sizes[p]; i++) total += (double)grads[p][i] * grads[p][i];
  }
  return std::sqrt(total);
}

// One step of Adam (Kingma and Ba 2015, algorithm 1) along the gradients times `scale`. `steps`
// counts those of each parameter.
void adam_step(int count, float* const* params, const float* const* grads, float* const* means,
               float* const* squares, float* const* steps, const int64_t* sizes, double scale,
               double learning_rate, double beta1, double beta2, double epsilon) {
  const float keep1 = (float)(1.0 - beta1), b2 = (float)beta2, keep2 = (float)(1.0 - beta2);
  for (int p = 0; p < count; p++) {
    const double step = ++*steps[p];
    const float rate = (float)(learning_rate / (1.0 - std::pow(beta1, step)));
    const float correction = (float)(1.0 / std::sqrt(1.0 - std::pow(beta2, step)));
    for (int64_t i = 0; i < sizes[p]; i++) {
      const float grad = grads[p][i] * (float)scale;
      means[p][i] += keep1 * (grad - means[p][i]);
      squares[p][i] = b2 * squares[p][i] + keep2 * grad * grad;
      params[p][i] -= rate * means[p][i] / (std::sqrt(squares[p][i]) * correction + (float)epsilon);
    }
  }
}

}  // extern "C"
