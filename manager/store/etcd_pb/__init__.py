"""Generated from proto/etcd/rpc.proto by proto/generate.py: do not edit."""
