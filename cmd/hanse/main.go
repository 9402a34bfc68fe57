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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
