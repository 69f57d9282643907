"""Models and a strategy with one fault each, so that each fault has to be found."""
