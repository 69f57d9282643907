#!/bin/sh
# Measure everything of reports/example anew, in about seven minutes on two idle cores, and write its pages in both
# languages: the default experiment; two sizes and none, a manual and the automatic strategy at one global batch;
# padding; the parts of a step; and four sizes of the simulated MoAI platform, whose figures say nothing of speed.
# Usage: PATH=.venv/bin:$PATH sh reports/example.sh
set -eu
cd "$(dirname "$0")/.."
store=$(mktemp -d)
up=
trap 'rm -rf "$store"; if [ "$up" ]; then eval "$(tunemark-moai-sim down)"; fi' EXIT
say() { echo "$(date +%H:%M:%S) $*" >&2; }
# 3: some verdict is unknown, which the page tells.
run() { code=0; tunemark run --store "$store" "$@" > /dev/null 2> "$store/log" || code=$?
        case $code in 0 | 1 | 3) ;; *) cat "$store/log" >&2; exit "$code" ;; esac; }
measure() { run --sequence 256 --micro-batch 2 --global-batch 4 --budget 6 "$@"; }

say the default experiment
run default
say sizes and strategies
measure --device cpu:1,2 --strategy none,ddp
measure --device cpu:2 --strategy auto --trials 2
say padding, and the parts of a step
measure --device cpu:2 --batching pad --repeats 2
measure --device cpu:2 --breakdown --repeats 1
say the simulated platform
eval "$(tunemark-moai-sim up)"
up=1
run moai-simulated --size 2xLarge.1024GB,4xLarge.2048GB,8xLarge.4096GB,12xLarge.6144GB --steps 6
eval "$(tunemark-moai-sim down)"
up=

say the pages
rm -f "$store/log"
report() { code=0; tunemark report "$store" --prices reports/prices.toml "$@" > /dev/null || code=$?
           case $code in 0 | 1 | 3) ;; *) exit "$code" ;; esac; }
rm -rf reports/example
report -o reports/example
report -o reports/example/ko --language ko
rm -r reports/example/ko/charts reports/example/ko/tables reports/example/ko/*.jsonl reports/example/ko/report.csv reports/example/ko/report.json
