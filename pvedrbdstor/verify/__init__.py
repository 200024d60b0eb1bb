"""Whether both nodes hold the same data, and what a difference means. Reads only, and changes nothing anywhere."""
