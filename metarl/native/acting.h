// One step of a recurrent policy for categorical actions, from percepts to sampled actions.
//
// Encodes the percept as `percept_features`, then embedding, recurrent layer and perceptrons for
// the logits and, if they are wanted, the values. Weights are packed once for a whole rollout. Within a block of lanes, equal inputs,
// as of discrete observations, are embedded once.

#pragma once

#include "losses.h"
#include "perceptron.h"
#include "recurrent.h"

extern "C" {

// Mirrored by `ActingStep` in library.py.
struct ActingStep {
  Layer layer;  // of one step; its inputs are made here
  Perceptron policy, value;  // value: without outputs where it is not wanted
  int32_t observation, actions;  // components of the observation, and of an encoded action
  const float* obs;              // [L, D]
  const int64_t* previous_action;
  const float* previous_reward;
  const uint8_t* flags[4];  // previous terminated, truncated, first of episode, first of trial
  const float* uniform;     // in [0, 1), decides the action
  float *hidden, *cell;     // results: [L, H]
  int64_t* action;
  float *log_prob, *values;
};
}

namespace {

// The rows of a block's percepts, [lanes, F].
inline void encode(const ActingStep& step, int from, int lanes, float* rows) {
  const int D = step.observation, A = step.actions, F = D + A + 5;
  for (int b = 0; b < lanes; b++, rows += F) {
    const int lane = from + b;
    memcpy(rows, step.obs + (long)lane * D, D * sizeof(float));
    for (int k = D; k < F; k++) rows[k] = 0.0f;
    const int64_t action = step.previous_action[lane];
    if (action < 0 || action >= A)
      rows[D] = NAN;  // no such action: the result is no number either
    else if (!step.flags[3][lane])
      rows[D + action] = 1.0f;
    rows[D + A] = step.previous_reward[lane];
    for (int k = 0; k < 4; k++) rows[D + A + 1 + k] = step.flags[k][lane];
  }
}

// Inverts the cumulative distribution of each row's logits at its uniform number.
inline void sample(int rows, int actions, long stride, const float* logits, const float* uniform,
                   int64_t* action, float* log_prob, std::vector<Vector>& shifted) {
  for (int first = 0; first < rows; first += WIDTH) {
    const int count = std::min(WIDTH, rows - first);
    Vector largest{}, total{}, cumulative{};
    for (int a = 0; a < actions; a++) {
      shifted[a] = gather(logits + first * stride + a, stride, count);
      largest = a && !(shifted[a] > largest) ? largest : shifted[a];
    }
    for (int a = 0; a < actions; a++) total += exponential(shifted[a] - largest);
    const Vector target = gather(uniform + first, 1, count) * total;
    Integers chosen{};
    for (int a = 0; a + 1 < actions; a++) {  // rounding must not lead past the last action
      cumulative += exponential(shifted[a] - largest);
      chosen -= cumulative < target;
    }
    for (int i = 0; i < count; i++) {
      action[first + i] = chosen[i];
      log_prob[first + i] = shifted[chosen[i]][i] - largest[i] - std::log(total[i]);
    }
  }
}

// Buffers for a block of lanes.
struct ActingBuffers {
  std::vector<float> tape, inputs, rows, embedded, products, head_hidden, logits, values;
  std::vector<int32_t> row;
  std::vector<Vector> shifted;
  ActingBuffers(const ActingStep& step, const Sizes& s, const PerceptronParts& policy,
                const PerceptronParts& value, long lanes)
      : tape(lanes * Tape::lane_size(s)), inputs(lanes * s.F), rows(lanes * s.F),
        embedded(lanes * s.P), products(lanes * s.product()),
        head_hidden(lanes * std::max(policy.P, value.P)), logits(lanes * policy.Q),
        values(lanes * value.Q), row(lanes), shifted(step.actions) {}

  // The inputs' part of the gates, with each distinct row of `inputs` embedded once.
  void input_product(const Sizes& s, const Packed& packed, int lanes, float* gates) {
    const float* distinct = rows.data();
    int count = distinct_rows(inputs.data(), lanes, s.F, lanes / 2, row.data(), rows.data());
    if (count < 0) {
      distinct = inputs.data();
      count = lanes;
      for (int b = 0; b < lanes; b++) row[b] = b;
    }
    multiply(count, s.P, s.F, {distinct, s.F, 1}, packed.embed, embedded.data(), s.P, Into::Assign,
             packed.embed_bias);
    relu_in_place(embedded.data(), (long)count * s.P);
    multiply(count, s.product(), s.E, {embedded.data(), s.P, 1}, packed.input, products.data(),
             s.product(), Into::Assign, packed.input_bias);
    for (int b = 0; b < lanes; b++)
      memcpy(gates + (long)b * s.width(), products.data() + (long)row[b] * s.product(),
             s.product() * sizeof(float));
  }
};

}  // namespace

extern "C" {

// Floats of the packed weights of layer, policy and value.
void acting_sizes(const ActingStep* step, int64_t sizes[3]) {
  sizes[0] = Packed(Sizes(step->layer), nullptr).size;
  sizes[1] = PerceptronParts(step->policy).packed_size;
  sizes[2] = PerceptronParts(step->value).packed_size;
}

void acting_prepare(const ActingStep* step) {
  recurrent_prepare(&step->layer);
  perceptron_prepare(&step->policy);
  if (step->value.outputs) perceptron_prepare(&step->value);
}

// Blocks first, ..., last - 1.
void act(const ActingStep* step, int first, int last) {
  const Sizes s(step->layer);
  const Packed packed(s, step->layer.packed);
  const PerceptronParts policy(step->policy), value(step->value);
  const int most = std::min(s.B, s.L);
  ActingBuffers buffers(*step, s, policy, value, most);
  for (int number = first; number < last; number++) {
    Block block(step->layer, s, packed, number, Tape(s, buffers.tape.data(), 0, most));
    const int lanes = block.lanes, from = block.from;
    encode(*step, from, lanes, buffers.inputs.data());
    buffers.input_product(s, packed, lanes, block.gates(0));
    block.start();
    block.step(0);
    block.write(step->hidden, step->cell);
    float* head_hidden = buffers.head_hidden.data();
    perceptron_rows(policy, lanes, block.hidden(1), s.P, head_hidden, buffers.logits.data());
    sample(lanes, step->actions, policy.Q, buffers.logits.data(), step->uniform + from,
           step->action + from, step->log_prob + from, buffers.shifted);
    if (!value.O) continue;
    perceptron_rows(value, lanes, block.hidden(1), s.P, head_hidden, buffers.values.data());
    for (int b = 0; b < lanes; b++) step->values[from + b] = buffers.values[(long)b * value.Q];
  }
}

}  // extern "C"
