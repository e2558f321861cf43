"""What a person starts: the command line, the configuration, the Ray Dataset graph, one module a command."""
