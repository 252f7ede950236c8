"""Where turns are kept: each store is the same contract over another ground."""
