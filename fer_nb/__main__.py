"""`python -m fer_nb` is the command `fer_nb`."""
from fer_nb.cli import main

raise SystemExit(main())
