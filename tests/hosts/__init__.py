"""A GitHub for tests: a real HTTP server with state, over real git repositories, judged by GitHub's own description."""
