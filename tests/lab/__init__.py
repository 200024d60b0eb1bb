"""The lab: real two-node DRBD and OCFS2 clusters in user space. docs/lab.md tells how it works."""
