// Everything that a build holds.

#pragma once

#include "acting.h"
#include "losses.h"
#include "noise.h"
#include "perceptron.h"
#include "ppo.h"
#include "recurrent.h"
#include "stacked.h"
