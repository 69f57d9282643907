"""Definitions for readers of the numbers: notes for every format, and a glossary of terms."""

from __future__ import annotations

NOTES = (
    "tokens/s: content tokens (no padding) over the wall time of the timed steps, whole job; slots: batch x row width; "
    "trained: tokens with a label.",
    "An interval is 95 %: between attempts where there are two or more, else within the one run.",
    "Not timed: preparing the data, starting, building the model, the peak's measurement, and the warm-up steps.",
)

CLAIM_NOTES = (
    "An imported claim was not measured here. Its rate is as its source states it, and counts what its tool counts; "
    "the re-derived ones count every slot of a batch.",
    "Implied MFU: of the chips' dense peak, model FLOPs with causal attention, nothing recomputed.",
    "Valid means that nothing contradicts a claim.",
)

TERMS = (
    ("tokens/s (content)", "Content tokens, never padding, of the whole job over the wall time of the timed steps."),
    (
        "tokens/s (slots)",
        "Every slot of every batch (batch x row width), padding included. Most published figures mean this one. The "
        "width is the sequence, and with batching bucket that of each micro-batch.",
    ),
    ("tokens/s (trained)", "Tokens that a loss was taken on."),
    (
        "95 % interval",
        "Between attempts: Student's t on the logarithms of the attempts' rates. Within one run: batch means of its "
        "windows, which says nothing of how processes differ.",
    ),
    ("attempt", "One life of the training processes, started afresh. It is the unit of replication."),
    ("window", "One or more steps between two instants at which the device had finished all its work."),
    (
        "warm-up",
        "Steps before a change-point test finds the step time settled, or as many as were asked for. Not timed.",
    ),
    ("padding", "The share of slots that hold no content."),
    (
        "MFU",
        "Slots per second x model FLOPs per token (causal attention, nothing recomputed) over the dense peak FLOP/s of "
        "the precision in use. Without a known peak there is none.",
    ),
    ("HFU", "MFU that counts what checkpointing computes again, too."),
    ("speed-up", "The rate over that of N0, the smallest size that was measured well."),
    ("efficiency", "Speed-up x N0 / N: 100 % where each chip that was added brings as much as one of N0's."),
    (
        "search",
        "Seconds in which a platform chose how to parallelize, compiling included. They are part of no rate.",
    ),
    (
        "energy per token",
        "Joules of the timed steps, of all devices of the job by their own counters, over content tokens. Without a "
        "counter there is none.",
    ),
    (
        "cost of a million tokens",
        "The user's price of an hour of the accelerator over the content tokens of an hour at the rate of the timed "
        "steps, x 1,000,000. Setting up, searching and warming up cost besides.",
    ),
    (
        "communication",
        "Time in which computing stands still for other ranks, mean over ranks: what they exchange and nothing hides, "
        "ranks that are late, and a pipeline's bubble. Measured with every part of a step waited for.",
    ),
    ("memory", "The most bytes that the fullest rank held, as the device counts them; 1 GiB = 2^30 bytes."),
    (
        "verdict",
        "valid: nothing contradicts the number. suspect: something disturbed it. invalid: it is no measurement of this "
        "training. unknown: too little is known. The findings say why.",
    ),
    (
        "origin",
        "measured: by this harness, on the named device. simulated: on a simulated platform, so it says nothing of "
        "speed. imported: read from somebody else's log or table. predicted: by a model's arithmetic, nothing ran.",
    ),
)
