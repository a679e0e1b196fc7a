// The functions on blocks, each with its blocks shared out to threads.

#pragma once

#include "acting.h"
#include "perceptron.h"
#include "ppo.h"
#include "recurrent.h"
#include "stacked.h"
#include "team.h"

#define SHARED(name)                                                                           \
  void name##_shared(const void* step, int blocks, int parts, void* const* others) {           \
    share_out(name, step, blocks, parts, others);                                              \
  }

extern "C" {

SHARED(act)
SHARED(perceptron_backward)
SHARED(perceptron_forward)
SHARED(ppo_gradients)
SHARED(recurrent_backward)
SHARED(recurrent_forward)
SHARED(stacked_backward)
SHARED(stacked_forward)
SHARED(stacked_tangents)

}  // extern "C"

#undef SHARED
