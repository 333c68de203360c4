#!/usr/bin/env bash
# All that is to be known of a GPU, part by part, the most telling first; each figure is a file as soon as it is there.
#
#     xtask/gpu_bench.sh CONVZOO OUT [PART…]
#
# Parts: machine equality speed memory first loader train remote [default: all]. A call ends after LIMIT seconds (540): what is
# left is named, and a later call with that part goes on with it, since files that are there are not made again.
#
# CONVZOO is a build with `--features cuda,wgpu,remote`, perhaps compressed (.gz, .xz); OUT is a folder. From the environment:
#
#     BACKENDS  the test program `backends` with the same features, perhaps compressed, for equality
#     PYTHON    a Python with torch and torchvision, measured beside [python3]
#     DEVICES   what is measured [cuda,wgpu]
#     PHOTOS    a folder of photographs for the loader [the two of the page in the browser]
#     CIFAR     cifar10 as a folder of images, for training [the photographs]
#     TINY=1    the smallest of everything on wgpu, PyTorch on the CPU: to try the script itself, without a card
#
# What is missing on the machine is a row or a line with the reason.
set -uo pipefail

here=$(dirname "$(realpath "$0")")
convzoo=$(realpath "$1") out=$2
shift 2
parts=("$@")
((${#parts[@]})) || parts=(machine equality speed memory first loader train remote)
mkdir -p "$out"
out=$(realpath "$out")
python=${PYTHON:-python3} photos=$(realpath "${PHOTOS:-$here/../crates/convzoo-web/page/photos}") cifar=${CIFAR:-}
end=$((SECONDS + ${LIMIT:-540}))
work=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT

unpacked() { # unpacked FILE: the program itself
    local program
    program=$work/$(basename "${1%.*}")
    case $1 in
    *.gz) gunzip -c "$1" >"$program" || return ;;
    *.xz) xz -dc "$1" >"$program" || return ;;
    *) realpath "$1" && return ;;
    esac
    chmod +x "$program" && echo "$program"
}
convzoo=$(unpacked "$convzoo") || exit
backends=${BACKENDS:-}
[[ -z $backends ]] || backends=$(unpacked "$backends") || exit

if [[ ${TINY:-} ]]; then
    devices=${DEVICES:-wgpu} peer=cpu seconds=0.1 copies=2 timeout=200
    told=(lenet5 resnet20_cifar) networks=(lenet5) settings=("infer 1 f32" "train 2 f32" "infer 1 f16")
    memory=("lenet5 train 2 f32") loaded=(resnet20_cifar) loading=(--batch 2) trains=(--epochs 1 --batch 2) remote=(1)
else
    devices=${DEVICES:-cuda,wgpu} peer=cuda seconds=1 copies=512 timeout=90
    told=(resnet18 densenet121 mobilenet_v3_small squeezenet1_1 googlenet resnet20_cifar vgg11_bn)
    networks=(resnet50 vgg16 resnet18 densenet121 squeezenet1_1 googlenet alexnet inception_v3)
    settings=("train 64 bf16" "infer 32 bf16" "train 64 f32" "infer 32 f32" "infer 256 bf16" "infer 1 f32"
        "train 256 bf16" "infer 256 f32" "infer 1 bf16" "train 256 f32")
    memory=("resnet50 train 64 bf16" "resnet50 train 64 f32" "resnet50 infer 32 bf16" "vgg16 train 64 bf16")
    loaded=(resnet18 resnet50) loading=(--batch 64) trains=(--epochs 10 --batch 128) remote=(32)
fi
first=${devices%%,*}

pytorch="$python $here/peers.py pytorch --device $peer --memory $out/pytorch-memory.jsonl"
peers=(--peer "pytorch=$pytorch")
[[ ${TINY:-} ]] || peers+=(--peer "pytorch-channels-last=$pytorch --channels-last --tf32"
    --peer "pytorch-compiled=$pytorch --channels-last --tf32 --compiled")

left() { echo $((end - SECONDS)); }

# todo FILE: whether there is time to make it, and it is not there. Says so.
todo() {
    [[ -s $out/$1 ]] && return 1
    if (($(left) < 15)); then
        echo "no time left for $1"
        return 1
    fi
    echo "== $1 ($(left) s left)"
}

# bench FILE ARGUMENTS…: a measurement that is given up, or a GPU that is not there, must not end the others.
bench() {
    local file=$out/$1
    todo "$1" || return 0
    shift
    timeout "$(left)" "$convzoo" bench "$@" --seconds "$seconds" --timeout "$timeout" --json >"$file.part" 2>>"$out/bench.log" ||
        echo "ended with $?; see bench.log"
    if [[ -s $file.part ]]; then mv "$file.part" "$file"; else rm -f "$file.part"; fi
}

machine() {
    {
        nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "no nvidia-smi"
        "$python" -c 'import torch, torchvision; print("torch", torch.__version__, "torchvision", torchvision.__version__)' ||
            echo "no torch"
        nproc
        "$convzoo" --version
        "$convzoo" devices
    } 2>&1 | tee "$out/machine.txt"
}

# The kernels of this project, then networks: each test in a process of its own, as `cargo xtask backends` has it, which
# makes the table of the log: `cargo xtask backends --log equality.log`.
equality() {
    if [[ -z $backends ]]; then
        echo "equality is measured with BACKENDS"
        return
    fi
    # The goldens of this tree, wherever the program was built.
    export CARGO_MANIFEST_DIR=$here/../crates/convzoo
    local log=$out/equality.log done=$out/equality.done device kind name
    touch "$log" "$done"
    test_once() { # test_once NAME…
        grep -qxFe "$*" "$done" && return
        todo "test $*" || return 0
        local text=$work/test.log
        if timeout "$(left)" "$backends" "$@" --include-ignored --nocapture >"$text" 2>&1; then
            grep -E "^(differences|skipped): | has no " "$text" | sort -u >>"$log"
        elif (($(left) < 1)); then
            return
        else
            grep "^differences: " "$text" >>"$log"
            echo "failed: $*: $(grep -A1 "panicked at" "$text" | tail -1)" | tee -a "$log"
            cat "$text" >>"$out/equality.failures"
        fi
        echo "$*" >>"$done"
    }
    test_once fused::
    for kind in %s::evaluation %s::training f16::%s bf16::%s; do
        for device in ${devices//,/ }; do
            # shellcheck disable=SC2059 # the kind is the format
            for name in "${told[@]}"; do test_once --exact "$(printf "$kind" "$device")::$name"; done
        done
    done
    [[ ${TINY:-} ]] && return
    for device in ${devices//,/ }; do
        for name in $("$backends" --list 2>/dev/null | grep -oE "^(f16::|bf16::)?$device::.*: test" | sed 's/: test$//'); do
            test_once --exact "$name"
        done
    done
}

# In f32 Burn's fastest kernel on CUDA may multiply in TF32, so PyTorch runs with it too, but for the first.
speed() {
    local setting mode batch precision name
    for setting in "${settings[@]}"; do
        read -r mode batch precision <<<"$setting"
        for name in "${networks[@]}"; do
            bench "speed-$mode-$batch-$precision-$name.json" "$name" --mode "$mode" --batch "$batch" \
                --precision "$precision" --device "$devices" --kernels on,off "${peers[@]}"
        done
    done
    table
}

# One engine at a time, so that what the card holds is its own. PyTorch says itself what it held, in pytorch-memory.jsonl.
memory() {
    local setting name mode batch precision device file watch
    for setting in "${memory[@]}"; do
        read -r name mode batch precision <<<"$setting"
        for device in ${devices//,/ }; do
            file=memory-$name-$mode-$batch-$precision-$device watch=
            [[ -s $out/$file.json ]] && continue
            if command -v nvidia-smi >/dev/null; then
                nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -lms 100 >"$work/used" 2>/dev/null &
                watch=$!
                sleep 0.5
            fi
            bench "$file.json" "$name" --mode "$mode" --batch "$batch" --precision "$precision" --device "$device"
            [[ -z $watch ]] && continue
            kill "$watch"
            # Before, and at most.
            { head -1 "$work/used"; sort -n "$work/used" | tail -1; } | paste -s >"$out/$file.mib"
        done
    done
}

# The time to the first result, of a program that has never run here and of one that has.
first() {
    local state device name=${networks[0]}
    for device in ${devices//,/ }; do
        for state in cold warm; do
            (
                export XDG_CACHE_HOME=$work/cache-$device CUDA_CACHE_PATH=$work/cache-$device TORCHINDUCTOR_CACHE_DIR=$work/cache-$device
                mkdir -p "$XDG_CACHE_HOME"
                cd "$work" || exit # CubeCL keeps its cache beside a Cargo.toml above, if there is one
                bench "first-$state-$device.json" "$name" --device "$device" "${peers[@]: -2}"
            )
        done
    done
    "$python" - "$out" <<'PYTHON'
import json, pathlib, sys
for file in sorted(pathlib.Path(sys.argv[1]).glob("first-*.json")):
    for row in json.loads(file.read_text()):
        times = [f"{row[field] / 1e3:.2f} s" for field in ("load_ms", "first_ms") if field in row]
        print(file.stem, row["device"], *(times or [" ".join(row["error"].split())]))
PYTHON
}

# train FILE ARGUMENTS…: the record of a run.
train() {
    local file=$out/$1
    todo "$1" || return 0
    shift
    rm -rf "$work/run"
    if timeout "$(left)" "$convzoo" train "$@" --seed 0 --out "$work/run" --json >"$file.part" 2>>"$out/train.log"; then
        mv "$file.part" "$file"
        cp "$work/run/metrics.csv" "${file%.json}.csv"
    else
        echo "ended with $?; see train.log"
        rm -f "$file.part"
        # What it had learned until then.
        cp "$work/run/metrics.csv" "${file%.json}.part.csv" 2>/dev/null
    fi
}

# A folder of photographs, `copies` of each, of two classes.
photographs() {
    local folder=$work/photographs part class photo copy many=$copies
    [[ -d $folder ]] && return
    for part in train test; do
        [[ $part == test ]] && many=1
        for class in one two; do
            mkdir -p "$folder/$part/$class"
            for photo in "$photos"/*.jpg; do
                for ((copy = 0; copy < many; copy++)); do
                    ln -s "$photo" "$folder/$part/$class/$copy-$(basename "$photo")"
                done
            done
        done
    done
}

# Steps of training with their images in memory, the loader by itself, and both together: the second epoch's images a second.
loader() {
    local name device=$first
    photographs
    bench "loader-alone.json" --data "$photos"
    for name in "${loaded[@]}"; do
        bench "loader-without-$name.json" "$name" --mode train --batch "${loading[1]}" --device "$device"
        train "loader-with-$name.json" "$name" --data folder --data-dir "$work/photographs" --device "$device" --epochs 2 "${loading[@]}"
    done
}

training() {
    local folder=$cifar
    if [[ -z $folder ]]; then
        photographs
        folder=$work/photographs
    fi
    train "train-resnet20_cifar.json" resnet20_cifar --data folder --data-dir "$folder" --device "$first" "${trains[@]}"
}

# The first device, over loopback.
remote() {
    local log=$work/serve.log
    if ! "$convzoo" devices | grep -q "^ ws:.* yes "; then
        echo "this build is without the feature remote"
        return
    fi
    "$convzoo" serve --device "$first" --listen 127.0.0.1:3917 >"$log" 2>&1 &
    server=$!
    for _ in {1..50}; do
        grep -q 3917 "$log" && break
        sleep 0.2
    done
    bench "remote-${networks[0]}.json" "${networks[0]}" --mode infer,train --batch "${remote[0]}" \
        --device "$first,ws://127.0.0.1:3917"
    kill "$server" && wait "$server" 2>/dev/null
    server=
}

table() {
    "$python" - "$out" <<'PYTHON'
import json, pathlib, sys
print("| network | mode | batch | precision | engine | median ms | images/s | GFLOP/s | first s |")
print("| --- | --- | --: | --- | --- | --: | --: | --: | --: |")
for file in sorted(pathlib.Path(sys.argv[1]).glob("speed-*.json")):
    for row in json.loads(file.read_text()):
        figures = [f"{row[field]:.4g}" for field in ("median_ms", "images_per_second", "gflops") if field in row]
        figures = figures + [f"{row['first_ms'] / 1e3:.3g}"] if figures else [" ".join(row["error"].split()), "", "", ""]
        engine = row["device"] + (", kernels off" if row.get("kernels") is False else "")
        print("|", *(f"{row[field]} |" for field in ("model", "mode", "batch", "precision")), engine, "|", " | ".join(figures), "|")
PYTHON
}

for part in "${parts[@]}"; do
    case $part in
    machine | equality | speed | memory | first | loader | remote) "$part" ;;
    train) training ;;
    *) echo "there is no part $part" >&2 && exit 2 ;;
    esac
done
