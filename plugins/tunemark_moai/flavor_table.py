"""The names of the platform's flavors, and how many devices of 64 GB each has. Python 3.8, for the simulator's sake."""

from __future__ import annotations

DEVICE_MIB = 65520

# In the order of the menus of 24.x.
MENU_FLAVORS = {
    "Small.64GB": 1,
    "Medium.128GB": 2,
    "Large.256GB": 4,
    "xLarge.512GB": 8,
    "1.5xLarge.768GB": 12,
    "2xLarge.1024GB": 16,
    "3xLarge.1536GB": 24,
    "4xLarge.2048GB": 32,
    "6xLarge.3072GB": 48,
    "8xLarge.4096GB": 64,
    "12xLarge.6144GB": 96,
    "24xLarge.12288GB": 192,
    "48xLarge.24576GB": 384,
}
# Values of ACCELERATOR_PLATFORM_FLAVOR, for 25.3.208 and later, in the examples of moreh-dev/moai-examples. No document
# says what they are made of: the numbers are the simulator's.
DEFAULT_FLAVORS = {"flavor-default-8": 8, "flavor-default-16": 16, "flavor-default-32": 32}

FLAVOR_DEVICES = {**MENU_FLAVORS, **DEFAULT_FLAVORS}
