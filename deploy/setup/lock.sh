#!/bin/sh
# Pins requirements/*.in into requirements/*.txt: every file with its hashes, no index address.
# Set UPGRADE=1 to take the newest releases that the .in files allow.
set -eu
cd "$(dirname "$0")/../../requirements"
for name in uv runtime dev; do
    ../.venv/bin/uv pip compile -q --system-certs --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header ${UPGRADE:+--upgrade} \
        "$name.in" -o "$name.txt"
done
