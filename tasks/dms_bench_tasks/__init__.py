"""Tasks that come with dms_bench, a folder each; `dms_bench.tasks` says what one has to do."""
