"""`python -m vmm_ras.cli`."""

from vmm_ras.cli import main

main()
