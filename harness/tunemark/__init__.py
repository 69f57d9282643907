"""tunemark: how many tokens per second does fine-tuning this model reach on that accelerator?"""

__version__ = "0.1.0"
