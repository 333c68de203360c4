#!/usr/bin/env bash
# Measures an NVIDIA GPU within eight minutes (LIMIT seconds): Burn on CUDA and on wgpu against PyTorch, eager and compiled, by turns.
#
#     xtask/gpu_bench.sh CONVZOO OUT [PYTHON]
#
# CONVZOO is a release build with `--features cuda,wgpu`, perhaps gzipped, OUT a folder for a JSON file of each
# measurement, PYTHON one with torch and torchvision. Whatever is missing on the machine is a row with its reason.
set -euo pipefail

convzoo=$(realpath "$1") out=$2 python=${3:-python3}
peers=$(dirname "$(realpath "$0")")/peers.py
end=$((SECONDS + ${LIMIT:-450}))
mkdir -p "$out"
if [[ $convzoo == *.gz ]]; then
    gunzip -c "$convzoo" >"$out/convzoo"
    convzoo=$(realpath "$out/convzoo")
    chmod +x "$convzoo"
    trap 'rm -f "$convzoo"' EXIT
fi

pytorch="$python $peers pytorch --device cuda"
eager=(--peer "pytorch=$pytorch")
tf32=(--peer "pytorch-tf32=$pytorch --tf32")
compiled=(--peer "pytorch-compiled-tf32=$pytorch --tf32 --compiled")

bench() { # bench FILE MODEL ARGUMENTS…
    local file=$out/$1.json left=$((end - SECONDS))
    if ((left < 15)); then
        echo "no time left for $1"
        return
    fi
    echo "== $1 ($left s left)"
    shift
    # A measurement that is given up, or a GPU that is not there, must not end the others.
    timeout "$left" "$convzoo" bench "$@" --seconds 1 --timeout 60 --json >"$file.part" || echo "ended with $?"
    [[ -s $file.part ]] && mv "$file.part" "$file" || rm -f "$file.part"
}

{
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "no nvidia-smi"
    "$python" -c 'import torch, torchvision; print("torch", torch.__version__, "torchvision", torchvision.__version__)' ||
        echo "no torch"
    "$convzoo" --version
    "$convzoo" devices
} 2>&1 | tee "$out/machine.txt"

# The most telling first. In f32 Burn's fastest kernel on CUDA may multiply in TF32, so PyTorch runs with it too.
for model in resnet50 vgg16 densenet121 squeezenet1_1; do
    bench "$model-infer-f32" "$model" --device cuda,wgpu --batch 32 "${eager[@]}" "${tf32[@]}" "${compiled[@]}"
    bench "$model-train-f32" "$model" --device cuda,wgpu --batch 32 --mode train "${eager[@]}" "${tf32[@]}"
    bench "$model-infer-16" "$model" --device cuda,wgpu --batch 32 --precision bf16,f16 "${eager[@]}"
    bench "$model-infer-one" "$model" --device cuda,wgpu --batch 1 "${tf32[@]}"
    bench "$model-train-16" "$model" --device cuda --batch 32 --mode train --precision bf16 "${eager[@]}"
done

"$python" - "$out" <<'PYTHON'
import json, pathlib, sys
print("| network | mode | batch | precision | engine | median ms | images/s | GFLOP/s |")
print("| --- | --- | --: | --- | --- | --: | --: | --: |")
for file in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    for row in json.loads(file.read_text()):
        figures = [f"{row[field]:.4g}" for field in ("median_ms", "images_per_second", "gflops") if field in row]
        figures = figures or [" ".join(row["error"].split()), "", ""]
        print("|", *(f"{row[field]} |" for field in ("model", "mode", "batch", "precision", "device")), " | ".join(figures), "|")
PYTHON
