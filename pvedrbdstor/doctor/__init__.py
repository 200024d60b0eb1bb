"""What is wrong with a mirror and its two nodes, what that means, and what helps. Reads only (docs/doctor.md).

`sources` asks one node, `look` both; `checks` are pure rules on what was seen; `words` tells it to people.
"""
