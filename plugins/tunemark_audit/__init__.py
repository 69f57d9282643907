"""The rules that hold other people's figures, held to our own runs."""
