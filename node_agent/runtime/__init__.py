"""The container runtime: OCI configuration, conmon and runc, exec and probes."""
