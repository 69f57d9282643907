"""Read device telemetry while jobs run: by NVML, AMD SMI, and the host's kernel."""
