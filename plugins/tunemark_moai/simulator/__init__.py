"""A simulator of Moreh's MoAI platform, to try a whole run on a laptop: `tunemark-moai-sim up --version 24.5.0`.

It puts `moreh-smi` and `moreh-switch-model`, or `ap-smi`, on PATH, and `torch.moreh` into the worker; their state is a
file. Everything is computed on the host's CPU, so no figure says anything about the speed of the platform.

As documented: the tables, menus, prompts and replies of the tools, by version; the lines that the platform writes
into a program's output, and their order; the flavors with their memory and servers; waiting for a process and in the
queue; running out of memory at the limit of one device; losing the connection; the arguments of the call.

Invented, since undocumented, and configurable where a caller could depend on it: exit codes, the reply to an invalid
selection, the reaction to the end of the input, an idle `ap-smi`; also the memory of a job (16 bytes per parameter and
512 MiB), which configuration is selected, and that the accelerator is acquired when the optimizer is created (on the
platform: when the first tensor is moved there).

Written in Python 3.8 with the standard library alone, since a worker of any interpreter imports it.
"""

# Environment variable with the folder of a simulator that stands in for the platform.
SIMULATOR_VARIABLE = "TUNEMARK_MOAI_SIM"
