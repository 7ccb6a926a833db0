"""The node agent: runs assigned tasks as OCI containers and reports what it sees."""
