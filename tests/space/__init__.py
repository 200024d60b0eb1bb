"""Tests of pvedrbdstor/space."""
