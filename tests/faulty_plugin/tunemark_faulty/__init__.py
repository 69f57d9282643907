"""Models and strategies with one fault each, which the harness must find."""
