package rest

import "flag"

var update = flag.Bool("update", false, "write golden files and docs/errors.md")
