"""`python -m trilemma`, as `torchrun -m trilemma` and `accelerate launch -m trilemma` start it."""

from trilemma.cli import main

main()
