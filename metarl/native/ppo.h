// The gradient of PPO's loss by all weights of an actor-critic, for one minibatch of lanes.
//
// Embedding, recurrent layer, a perceptron for the logits of categorical actions and one for the
// values, as `PPO` composes them in torch. Each block of lanes goes forward through all steps,
// through heads and loss, and backward, within one thread: its tape stays in the cache.

#pragma once

#include "losses.h"
#include "perceptron.h"
#include "recurrent.h"

extern "C" {

// Mirrored by `PPOStep` in library.py. Rows of x, action, ... are those of all lanes.
struct PPOStep {
  Layer layer;
  Perceptron policy, value;
  const int64_t* action;                                          // [T, all lanes]
  const float *old_log_prob, *advantage, *value_target, *valid;   // [T, all lanes]
  double weight;  // valid rows of the minibatch, set by ppo_prepare
  float clip_range, value_coef, entropy_coef;
};
}

namespace {

struct PPOSums {
  float *layer, *policy, *value;
  long size;
  PPOSums(const PPOStep& step, float* buffer) {
    Parts parts{buffer};
    layer = parts.take(Sums(Sizes(step.layer), nullptr).size);
    policy = parts.take(PerceptronSums(PerceptronParts(step.policy), nullptr).size);
    value = parts.take(PerceptronSums(PerceptronParts(step.value), nullptr).size);
    size = parts.used;
  }
};

// What heads and loss need for some rows of a block.
struct Heads {
  const PPOStep& step;
  const PerceptronParts policy, value;
  const PerceptronSums policy_sums, value_sums;
  double* means;
  std::vector<float> policy_hidden, logits, log_probs, value_hidden, values, of_hidden;
  std::vector<float> numbers;  // eight for each row
  std::vector<int64_t> action;

  Heads(const PPOStep& step, const PPOSums& sums, double* means)
      : step(step), policy(step.policy), value(step.value), policy_sums(policy, sums.policy),
        value_sums(value, sums.value), means(means), policy_hidden(ROWS * policy.P),
        logits(ROWS * policy.Q), log_probs(ROWS * policy.Q), value_hidden(ROWS * value.P),
        values(ROWS * value.Q), of_hidden(ROWS * std::max(policy.P, value.P)), numbers(10 * ROWS),
        action(ROWS) {}

  float* column(int number) { return numbers.data() + number * ROWS; }

  // Gradients of the features [rows, P] of rows first, ... of a block.
  void run(const Block& block, int first, int rows, const float* features, float* of_features) {
    const long P = block.s.P;
    float *old_log_prob = column(0), *advantage = column(1), *target = column(2);
    float *valid = column(3), *log_prob = column(4), *entropy = column(5), *predicted = column(6);
    float *of_log_prob = column(7), *of_entropy = column(8), *of_value = column(9);
    for (int i = 0; i < rows; i++) {
      const long place = block.place(first + i);
      action[i] = step.action[place];
      old_log_prob[i] = step.old_log_prob[place];
      advantage[i] = step.advantage[place];
      target[i] = step.value_target[place];
      valid[i] = step.valid[place];
    }
    perceptron_rows(policy, rows, features, P, policy_hidden.data(), logits.data());
    perceptron_rows(value, rows, features, P, value_hidden.data(), values.data());
    for (int i = 0; i < rows; i++) predicted[i] = values[i * value.Q];
    categorical_forward(rows, policy.O, policy.Q, logits.data(), action.data(), log_probs.data(),
                        log_prob, entropy);
    surrogate(rows, log_prob, old_log_prob, advantage, predicted, target, entropy, valid,
              step.weight, step.clip_range, step.value_coef, step.entropy_coef, means, of_log_prob,
              of_value, of_entropy);
    std::fill(logits.begin(), logits.end(), 0.0f);
    std::fill(values.begin(), values.end(), 0.0f);
    categorical_backward(rows, policy.O, policy.Q, log_probs.data(), action.data(), entropy,
                         of_log_prob, of_entropy, logits.data());
    for (int i = 0; i < rows; i++) values[i * value.Q] = of_value[i];
    perceptron_rows_backward(policy, rows, features, P, policy_hidden.data(), logits.data(),
                             policy_sums, of_hidden.data(), of_features, P, Into::Assign);
    perceptron_rows_backward(value, rows, features, P, value_hidden.data(), values.data(),
                             value_sums, of_hidden.data(), of_features, P, Into::Add);
  }

  static constexpr int ROWS = PERCEPTRON_ROWS;
};

}  // namespace

extern "C" {

// Floats of the packed weights of layer, policy and value, of the sums of gradients, and of each
// thread's tape.
void ppo_sizes(const PPOStep* step, int64_t sizes[5]) {
  const Sizes s(step->layer);
  sizes[0] = Packed(s, nullptr).size;
  sizes[1] = PerceptronParts(step->policy).packed_size;
  sizes[2] = PerceptronParts(step->value).packed_size;
  sizes[3] = PPOSums(*step, nullptr).size;
  sizes[4] = std::min(s.B, s.L) * (Tape::lane_size(s) + (long)s.T * s.P);
}

void ppo_prepare(PPOStep* step) {
  const Layer& layer = step->layer;
  step->weight = 0;
  for (int t = 0; t < layer.steps; t++)
    for (int l = 0; l < layer.lanes; l++)
      step->weight += step->valid[(long)t * layer.all_lanes + layer.lane[l]];
  recurrent_prepare(&step->layer);
  perceptron_prepare(&step->policy);
  perceptron_prepare(&step->value);
}

// Blocks first, ..., last - 1 of the minibatch; adds to `buffer` and to the means of the loss's
// parts, which start as zeros.
void ppo_gradients(const PPOStep* step, int first, int last, float* tape, float* buffer,
                   double means[5]) {
  const Sizes s(step->layer);
  const Packed packed(s, step->layer.packed);
  const PPOSums sums(*step, buffer);
  Heads heads(*step, sums, means);
  for (int number = first; number < last; number++) {
    const int lanes = std::min(s.B, s.L - number * s.B), rows = s.T * lanes;
    Block block(step->layer, s, packed, number, Tape(s, tape, 0, lanes));
    float* of_features = tape + lanes * Tape::lane_size(s);
    block.forward();
    for (int row = 0; row < rows; row += Heads::ROWS)
      heads.run(block, row, std::min(Heads::ROWS, rows - row), block.hidden(1) + (long)row * s.P,
                of_features + (long)row * s.P);
    Backward(block, nullptr, nullptr, sums.layer).run([&](int t, float* to) {
      const float* from = of_features + (long)t * lanes * s.P;
      for (long i = 0; i < (long)lanes * s.P; i += WIDTH) store(to + i, load(to + i) + load(from + i));
    });
  }
}

// Sums of gradients -> gradients in torch's layout, in the order of the weights of layer, policy
// and value.
void ppo_finish(const PPOStep* step, float* buffer, float* const grads[14]) {
  const PPOSums sums(*step, buffer);
  recurrent_finish(&step->layer, sums.layer, grads[0], grads[1], grads[2], grads[3], grads[4],
                   grads[5]);
  perceptron_finish(&step->policy, sums.policy, grads[6], grads[7], grads[8], grads[9]);
  perceptron_finish(&step->value, sums.value, grads[10], grads[11], grads[12], grads[13]);
}

}  // extern "C"
