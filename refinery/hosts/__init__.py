"""Pull-request hosts: one file each, no policy. They say what they saw; *unknown* is an answer of its own."""
