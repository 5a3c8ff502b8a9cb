"""The doors: files, sockets, signals and clocks are touched here, in the lab and in the command line, nowhere else."""
