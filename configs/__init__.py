"""One file a suite: what is run, the command, the minutes it takes and the numbers to expect."""
