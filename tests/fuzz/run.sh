#!/usr/bin/env bash
# Fuzz AppSpec texts and archives for FUZZ_SECONDS each; what is found stays in tests/fuzz/found.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${FUZZ_SECONDS:-60}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p tests/fuzz/found
failed=0
for target in appspec archive revision; do
    corpus=${target/revision/archive}
    mkdir "$work/$target"
    echo "== $target, $seconds seconds"
    .venv/bin/python tests/fuzz/fuzz.py "$target" "$work/$target" "tests/fuzz/corpus/$corpus" \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1024 -max_len=8192 -print_final_stats=1 \
        -dict="tests/fuzz/$corpus.dict" -artifact_prefix="tests/fuzz/found/$target-" 2>"$work/$target.log" ||
        failed=1
    grep -E '^(stat::|SUMMARY|==.*ERROR|.*Error: )' "$work/$target.log" || tail -5 "$work/$target.log"
done
exit "$failed"
