"""Numbers and formats of the OCFS2 file system."""
