"""A library that is loaded before the C library, and makes its calls fail, wait, or lie about the date."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from campaign.cases import NotHere

# FAULT_NAME: part of the names of files whose writing fails with FAULT_ERRNO, from the FAULT_AFTER-th time on.
# FAULT_DELAY_US: how long opening, writing, renaming and removing any file takes longer. FAULT_DATE_S: seconds that the
# date is off, from FAULT_DATE_AFTER_S seconds after the process began.
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int number(const char *name) { const char *text = getenv(name); return text ? atoi(text) : 0; }
static void wait_a_little(void) { int us = number("FAULT_DELAY_US"); if (us) usleep(us); }
static int calls = 0;
static int fails_at(const char *path) {
    const char *name = getenv("FAULT_NAME");
    if (!name || !path || !strstr(path, name)) return 0;
    return ++calls > number("FAULT_AFTER");
}
static int fails(int fd) {
    char link[64], path[4096];
    if (!getenv("FAULT_NAME")) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return fails_at(path);
}
#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))
ssize_t write(int fd, const void *buffer, size_t size) {
    wait_a_little();
    if (fails(fd)) { errno = number("FAULT_ERRNO"); return -1; }
    return REAL(write)(fd, buffer, size);
}
int fsync(int fd) { if (fails(fd)) { errno = number("FAULT_ERRNO"); return -1; } return REAL(fsync)(fd); }
int rename(const char *from, const char *to) {
    wait_a_little();
    if (fails_at(to)) { errno = number("FAULT_ERRNO"); return -1; }
    return REAL(rename)(from, to);
}
int unlink(const char *path) { wait_a_little(); return REAL(unlink)(path); }
static double began = -1;
static time_t off(void) {
    struct timespec now;
    ((int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime"))(CLOCK_MONOTONIC, &now);
    double s = now.tv_sec + now.tv_nsec * 1e-9;
    if (began < 0) began = s;
    return s - began >= number("FAULT_DATE_AFTER_S") ? number("FAULT_DATE_S") : 0;
}
int clock_gettime(clockid_t clock, struct timespec *found) {
    int code = ((int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime"))(clock, found);
    if (clock == CLOCK_REALTIME && !code) found->tv_sec += off();
    return code;
}
time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
"""


def build_shim(folder: Path) -> Path:
    """The library, compiled into a folder; `NotHere` without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotHere("there is no C compiler")
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(_SOURCE)
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise NotHere(f"the compiler fails: {done.stderr[-200:]}")
    return library
