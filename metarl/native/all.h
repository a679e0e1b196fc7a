// Everything that a build holds.

#pragma once

#include "losses.h"
#include "perceptron.h"
#include "ppo.h"
#include "recurrent.h"
