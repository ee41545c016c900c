"""What `make bench` measures: each figure beside a named reference, in the same run."""
