"""Real lazy and asynchronous devices, each with a driver that waits and others that do not."""
