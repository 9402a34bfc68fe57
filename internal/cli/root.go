package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hanse/client"
)

// Exit codes.
const (
	exitDone        = 0
	exitRefused     = 1
	exitUsage       = 2
	exitUnavailable = 3
)

// Version is the program's; a release sets it when linking.
var Version = "dev"

// DefaultAddr is the first node of a development cluster.
const DefaultAddr = "127.0.0.1:7400"

// app is what all commands share.
type app struct {
	in       io.Reader
	out, err io.Writer
	addr     string
	retryFor time.Duration
	json     bool
}

// usageError is a mistake on the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// errDifferent ends a command that has found a difference and has said so.
var errDifferent = errors.New("differences were found")

// Run runs a command line and returns the exit code.
func Run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{in: in, out: out, err: errOut}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	return a.exit(ctx, err)
}

func (a *app) exit(ctx context.Context, err error) int {
	var wrong *usageError
	var refused *client.Error
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errDifferent):
		return exitRefused
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(a.err, "interrupted")
		return exitRefused
	case errors.As(err, &wrong):
		fmt.Fprintf(a.err, "hanse: %v\n", err)
		return exitUsage
	case errors.As(err, &refused):
		if a.json {
			_ = json.NewEncoder(a.err).Encode(refused)
		} else {
			fmt.Fprintf(a.err, "hanse: %v\n", refused)
		}
		if refused.Retryable {
			return exitUnavailable
		}
		return exitRefused
	case errors.Is(err, client.ErrUnavailable):
		fmt.Fprintf(a.err, "hanse: %v\n  No node answers at %s. Is the cluster running? Try: hanse dev\n", err, a.addr)
		return exitUnavailable
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "unknown flag"),
		strings.HasPrefix(err.Error(), "unknown shorthand"), strings.HasPrefix(err.Error(), "invalid argument"),
		strings.HasPrefix(err.Error(), "flag needs an argument"), strings.HasPrefix(err.Error(), "required flag"),
		strings.HasPrefix(err.Error(), "accepts "), strings.HasPrefix(err.Error(), "requires at least"):
		fmt.Fprintf(a.err, "hanse: %v\n", err) // cobra's own errors have no types
		return exitUsage
	}
	fmt.Fprintf(a.err, "hanse: %v\n", err)
	return exitRefused
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "hanse", Short: "The order platform that stays right when machines fail",
		SilenceUsage: true, SilenceErrors: true,
	}
	addr := os.Getenv("HANSE_ADDR")
	if addr == "" {
		addr = DefaultAddr
	}
	root.PersistentFlags().StringVar(&a.addr, "addr", addr, "addresses of nodes, separated by commas (HANSE_ADDR)")
	root.PersistentFlags().DurationVar(&a.retryFor, "retry-for", 10*time.Second, "how long to look for a node that answers")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(
		a.serveCmd(), a.devCmd(), a.pspCmd(),
		a.orderCmd(), a.stockCmd(), a.paymentCmd(), a.sagaCmd(), a.kvCmd(), a.webhookCmd(), a.eventsCmd(),
		a.nodeCmd(), a.shardCmd(), a.replayCmd(), a.auditCmd(), a.benchCmd(), a.versionCmd(),
	)
	return root
}

// client returns a client of the cluster at --addr.
func (a *app) client() (*client.Client, error) {
	c, err := client.New(client.Config{Addrs: strings.Split(a.addr, ","), Pinned: true, RetryFor: a.retryFor})
	if err != nil {
		return nil, &usageError{err}
	}
	return c, nil
}

// print writes v as JSON, or what people gives when --json is not set.
func (a *app) print(v any, people func(w io.Writer)) error {
	if a.json {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	people(a.out)
	return nil
}

// table writes aligned columns.
func table(w io.Writer, head string, rows func(row func(cells ...any))) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, head)
	rows(func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, c)
		}
		fmt.Fprintln(t)
	})
	_ = t.Flush() // a writer that fails has failed for whoever reads it
}

// money writes minor units as people read them, with two decimals.
func money(minor int64, currency string) string {
	sign := ""
	if minor < 0 {
		sign, minor = "-", -minor
	}
	return fmt.Sprintf("%s%d.%02d %s", sign, minor/100, minor%100, currency)
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		return a.print(map[string]string{"version": Version}, func(w io.Writer) { fmt.Fprintln(w, "hanse", Version) })
	}}
}

// group makes a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(commands...)
	return c
}
