"""What vendors' own libraries say of devices while jobs run on them: NVML, AMD SMI, and the host's kernel."""
