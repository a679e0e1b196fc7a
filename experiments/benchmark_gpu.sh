#!/bin/sh
# Speed of RL² on a GPU, from 2^12 to 2^20 lanes, next to the JAX port where JAX sees the GPU.
#
#     sh experiments/benchmark_gpu.sh OUT [DEVICE]     # 5 to 8 minutes on one GPU
#
# Writes a page and a JSON file for each hidden size to OUT as soon as it is measured, so that an
# interruption loses little. DEVICE is cuda by default; with cpu it measures small sizes alone,
# which tests this script.
set -eu
out=${1:?name a folder for the results} device=${2:-cuda}
here=$(dirname "$0")
python=${PYTHON:-python}
mkdir -p "$out"
out=$(cd "$out" && pwd)
if [ "$device" = cpu ]; then
    lanes="64 128" rounds=2
else
    lanes="4096 16384 65536 262144 1048576" rounds=5
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv >"$out/gpu.csv"
fi
export METARL_CUDA_GRAPHS=1
for hidden in 64 256; do
    # The largest meta-batches of a large network do not fit into the memory of every GPU.
    for tasks in $lanes; do
        "$python" -m metarl benchmark rl2 metarl/BernoulliBandit-v0 --device "$device" \
            --num-tasks "$tasks" --rounds "$rounds" --agent.hidden-size "$hidden" --no-progress \
            --out "$out/metarl-$hidden-$tasks" ||
            echo "hidden size $hidden, $tasks tasks: failed" | tee -a "$out/failed.txt"
    done
done
# What replays and bfloat16 bring.
few=${lanes%% *}
METARL_CUDA_GRAPHS=0 "$python" -m metarl benchmark rl2 metarl/BernoulliBandit-v0 --device "$device" \
    --num-tasks "$few" --rounds "$rounds" --no-progress --out "$out/metarl-64-$few-no-graphs"
"$python" -m metarl benchmark rl2 metarl/BernoulliBandit-v0 --device "$device" --num-tasks "$few" \
    --rounds "$rounds" --agent.hidden-size 256 --agent.precision bfloat16 --no-progress \
    --out "$out/metarl-256-$few-bfloat16"
if [ "$device" != cpu ] && "$python" -c "import jax, optax; jax.devices('gpu')" 2>/dev/null; then
    cd "$here"
    for lanes in 4096 65536 1048576; do
        for hidden in 64 256; do
            printf '1\n1\n1\n1\n1\n' | "$python" worker_jax.py train "$lanes" "$hidden" 10 \
                >>"$out/jax-$hidden-$lanes.txt" || echo "JAX, $lanes lanes: failed"
        done
    done
fi
