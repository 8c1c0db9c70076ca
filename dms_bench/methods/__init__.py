"""Search methods: a file each, one small protocol (`base.Method`)."""
