"""What holds under load, attacks, signals and dying processes: `python -m benchmarks.load`."""
