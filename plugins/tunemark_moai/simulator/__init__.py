"""A simulator of Moreh's MoAI platform, to try the whole way on a laptop: `tunemark-moai-sim up --version 24.5.0`.

It puts `moreh-smi` and `moreh-switch-model`, or `ap-smi`, on PATH, and a `torch.moreh` into the worker; their state is
a file. Everything computes on the host's CPU, so that no figure says how fast anything is.

As documented: the tables, menus, questions and answers of the tools, by version; the lines that the platform writes
into a program's output, and their order; the flavors with their memories and servers; waiting for a process and in the
queue; running out of memory by the limit of one device; losing the connection; the call's arguments.

Invented, for want of documents, and switchable where a caller could depend on it: exit codes, the answer to an invalid
selection, what follows the end of the input, an idle `ap-smi`; also how much memory a job takes (16 bytes for each
parameter and 512 MiB), which configuration is selected, and that the accelerator is taken when the optimizer is made
(in truth when the first tensor goes there).

Written in Python 3.8 and with the standard library, since a worker of any interpreter imports it.
"""
