"""Tests of pvedrbdstor/verify."""
