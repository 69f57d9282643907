#!/bin/sh
# Measure everything of reports/example anew, in about six minutes on two idle cores, and write its pages in both
# languages: the default experiment, sizes and strategies at one global batch, padding, the parts of a step, and the
# simulated MoAI platform. Usage: PATH=.venv/bin:$PATH sh reports/example.sh
set -eu
cd "$(dirname "$0")/.."
store=$(mktemp -d)
trap 'rm -rf "$store"' EXIT
measure() { tunemark run --store "$store" --sequence 256 --micro-batch 2 --global-batch 4 --budget 6 "$@" > /dev/null; }

tunemark run benchmarks/default.toml --store "$store" > /dev/null
measure --device cpu:1,2 --strategy none,ddp
measure --device cpu:2 --batching pad --repeats 2
measure --device cpu:2 --breakdown --repeats 1
eval "$(tunemark-moai-sim up)"
tunemark run benchmarks/moai-simulated.toml --store "$store" > /dev/null
eval "$(tunemark-moai-sim down)"

tunemark report "$store" --prices reports/prices.toml -o reports/example > /dev/null
tunemark report "$store" --prices reports/prices.toml -o reports/example/ko --language ko > /dev/null
rm -r reports/example/ko/charts reports/example/ko/tables reports/example/ko/*.jsonl reports/example/ko/report.csv
