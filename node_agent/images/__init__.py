"""Images through buildah: pull, build, push, mount, prune."""
