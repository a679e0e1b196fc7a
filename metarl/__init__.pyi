"""The public names and the modules that define them: the one list of them.

`metarl/__init__.py` loads names lazily from here; type checkers and editors read it as a stub.
"""

from .agent import Adapted as Adapted
from .agent import Agent as Agent
from .agent import AgentConfig as AgentConfig
from .agent import AgentContext as AgentContext
from .agent import DistributionPolicy as DistributionPolicy
from .agent import GuidedAgent as GuidedAgent
from .agent import Memory as Memory
from .agent import MetaBatch as MetaBatch
from .agent import Phase as Phase
from .agent import Policy as Policy
from .agent import PolicyOutput as PolicyOutput
from .agent import Reference as Reference
from .agent import StochasticPolicy as StochasticPolicy
from .bridges.sb3_policy import sb3_policy as sb3_policy
from .bridges.sb3_vec_env import to_sb3_vec_env as to_sb3_vec_env
from .bridges.trial_env import TrialEnv as TrialEnv
from .bridges.trial_wrapper import TrialWrapper as TrialWrapper
from .bridges.varied_env import register_varied_env as register_varied_env
from .deployment.export import export_policy as export_policy
from .deployment.trained_policy import TrainedPolicy as TrainedPolicy
from .deployment.trained_policy import load_policy as load_policy
from .evaluation.agents import evaluate as evaluate
from .evaluation.policies import evaluate_policy as evaluate_policy
from .native.library import compiled_library as compiled_library
from .noise import LaneNoise as LaneNoise
from .plots.plot import plot as plot
from .registry import Preset as Preset
from .registry import agent_config as agent_config
from .registry import agent_names as agent_names
from .registry import make_family as make_family
from .registry import memory_names as memory_names
from .registry import presets as presets
from .registry import register_agent as register_agent
from .registry import register_family as register_family
from .registry import register_memory as register_memory
from .registry import register_preset as register_preset
from .registry import task_ids as task_ids
from .results.adaptation_curves import Curve as Curve
from .results.bootstrap import Estimate as Estimate
from .results.bootstrap import bootstrap_mean as bootstrap_mean
from .results.comparison import Comparison as Comparison
from .results.comparison import ComparisonRow as ComparisonRow
from .results.comparison import compare as compare
from .results.comparison import compare_curves as compare_curves
from .results.comparison import write_comparison as write_comparison
from .results.learning_curves import read_metrics as read_metrics
from .rollout import RolloutSpec as RolloutSpec
from .rollout import RolloutStorage as RolloutStorage
from .rollout import collect as collect
from .rollout import rollout_phases as rollout_phases
from .seeding import Seeds as Seeds
from .split import Split as Split
from .tasks.batched_env import BatchedEnv as BatchedEnv
from .tasks.batched_env import Transition as Transition
from .tasks.family import RenderFrame as RenderFrame
from .tasks.family import TaskDistribution as TaskDistribution
from .tasks.family import TaskFamily as TaskFamily
from .training.loop import train as train
from .training.options import SpeedOptions as SpeedOptions
from .training.process import keep_freed_memory as keep_freed_memory
from .training.provenance import describe_machine as describe_machine
from .training.run_folder import Run as Run
from .training.run_folder import load_run as load_run
from .training.seeds import train_seeds as train_seeds
from .training.speed import Speed as Speed
from .training.speed import Workloads as Workloads
from .training.speed import benchmark as benchmark
from .training.speed import workloads as workloads
from .trajectory import Percept as Percept
from .trajectory import Trajectory as Trajectory
from .video.record import record as record

__version__: str
