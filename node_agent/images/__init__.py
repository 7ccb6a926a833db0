"""Images through buildah, in this agent's own store; `buildah.Images` is what the worker and the CLI use."""
