"""What the operator puts into a cluster for one AgentMemory, as pure functions from its spec to manifests.

No manifest depends on time, chance or the state of the cluster: one spec, one output. What is a default of the API
server's own is left out, and no empty list, empty object or null is written, so that a manifest can be compared with
the live object member by member.
"""
