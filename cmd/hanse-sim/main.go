// Command hanse-sim plays whole clusters under faults, in virtual time, and checks that they keep their promises.
// See docs/simulator.md.
package main

import (
	"context"
	"os"
	"os/signal"

	"hanse/internal/sim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := sim.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
