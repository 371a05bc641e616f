"""From hints to acknowledged traces: the tasks of the daemon, against ports; knows no driver and no HTTP."""
