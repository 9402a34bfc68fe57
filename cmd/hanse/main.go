// Command hanse is the order platform: a node, its tools, and a cluster to try out.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"hanse/internal/cli"
)

func main() {
	_ = cli.CoarseTimers(os.Args[1:]) // without them all is the same, and slower
	// A terminal that is closed ends a node as Ctrl-C does.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // the second signal ends at once what does not end in order
	code := cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
