"""The benchmark: suites, runner, results, tables and plots on top of the library."""
