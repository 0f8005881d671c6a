"""A package beside trilemma: a sampler, a metric and a data set, each imported when it is named."""
