"""The modes, updates, restarts, jobs and dependencies of services, as pure reconcilers."""
