"""Everything that saves, watches, measures or speeds up a run."""
