#!/bin/sh
# Debian packages that the tests marked "full" need; each of these tests says what it misses where they are absent.
set -eu
packages="chromium fonts-noto-cjk slurm-wlm munge libtcmalloc-minimal4 libjemalloc2"
[ -z "$packages" ] || { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; }
