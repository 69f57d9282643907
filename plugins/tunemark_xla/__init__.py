"""The device `xla`: what PyTorch/XLA drives through PJRT: Google's TPUs, and XLA's own CPU device for tests."""
