package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hanse/client"
	"hanse/internal/dev"
	"hanse/internal/reject"
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

// DefaultAddr is the nodes of a development cluster as it is unless told otherwise: one of them may have been killed.
const DefaultAddr = "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420"

// app is what all commands share.
type app struct {
	in       io.Reader
	out, err io.Writer
	addr     string
	retryFor time.Duration
	json     bool
	key      string        // idempotency key of the change that the command makes; empty when it makes none
	poll     time.Duration // between two looks at what takes its time
	now      func() time.Time
	misled   error // a mistake that was met while helping, which cobra cannot return
}

// usageError is a mistake on the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// errDifferent ends a command that has found a difference, and errNotDone one that has not done its work; both have said so.
var (
	errDifferent = errors.New("differences were found")
	errNotDone   = errors.New("nothing was done")
)

// Run runs a command line and returns the exit code.
func Run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	return (&app{in: in, out: out, err: errOut, poll: 500 * time.Millisecond, now: time.Now}).run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(negativesLast(args))
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	return a.exit(ctx, cmp.Or(root.ExecuteContext(ctx), a.misled))
}

// negativesLast puts negative numbers behind "--", so that hanse stock adjust MUG -7 does not look for a flag -7. What
// follows a flag may be its value, and stays.
func negativesLast(args []string) []string {
	if slices.Contains(args, "--") {
		return args
	}
	var kept, numbers []string
	for i, arg := range args {
		_, err := strconv.ParseInt(arg, 10, 64)
		if err == nil && arg[0] == '-' && (i == 0 || !strings.HasPrefix(args[i-1], "-") || args[i-1] == "--json") {
			numbers = append(numbers, arg)
		} else {
			kept = append(kept, arg)
		}
	}
	if len(numbers) == 0 {
		return args
	}
	return append(append(kept, "--"), numbers...)
}

// exit reports a command's end and returns its code.
func (a *app) exit(ctx context.Context, err error) int {
	if err == nil {
		return exitDone
	}
	var wrong *usageError
	var refused *client.Error
	var unread *ledgerError
	switch {
	case errors.Is(err, errDifferent), errors.Is(err, errNotDone):
		return exitRefused
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		a.complain("interrupted", "interrupted")
		return exitRefused
	case errors.As(err, &wrong):
		a.complain("usage", err.Error())
		return exitUsage
	case errors.As(err, &refused):
		if a.json {
			_ = json.NewEncoder(a.err).Encode(refused) // nobody to tell that it cannot be told
		} else {
			a.complain(refused.Code, err.Error(), append(onHold(refused), a.repeat(refused.Retryable)...)...)
		}
		if refused.Retryable {
			return exitUnavailable
		}
		return exitRefused
	case errors.Is(err, client.ErrUnavailable):
		hints := []string{fmt.Sprintf("Is the cluster running at %s? Start one with hanse dev, or name a node with --addr or HANSE_ADDR.", a.addr)}
		a.complain("unavailable", err.Error(), append(hints, a.repeat(true)...)...)
		return exitUnavailable
	case errors.As(err, &unread), errors.Is(err, dev.ErrNoCluster):
		a.complain("unavailable", err.Error())
		return exitUnavailable
	}
	a.complain("failed", err.Error())
	return exitRefused
}

// onHold says where to look when an order is refused something because it waits for a person.
func onHold(refused *client.Error) []string {
	if refused.Code != reject.OrderState || !strings.HasSuffix(refused.Detail, "on_hold") {
		return nil
	}
	orderID := "ORDER"
	if path := strings.Split(refused.Instance, "/"); len(path) > 3 && path[2] == "orders" { // /v1/orders/ID/...
		orderID = path[3]
	}
	return []string{"It waits for a person: hanse saga show " + orderID + " says why, and how to go on."}
}

// repeat says how to repeat a change safely, when it may or may not have been carried out.
func (a *app) repeat(unknown bool) []string {
	if !unknown || a.key == "" {
		return nil
	}
	return []string{"It may or may not have been done. Repeat it safely with: --key " + a.key}
}

// complain writes an error, and in which way it can be mended.
func (a *app) complain(code, detail string, hints ...string) {
	if a.json {
		_ = json.NewEncoder(a.err).Encode(struct {
			Code   string `json:"code"`
			Detail string `json:"detail"`
			Hint   string `json:"hint,omitempty"`
		}{code, detail, strings.Join(hints, " ")})
		return
	}
	fmt.Fprintf(a.err, "hanse: %s\n", detail)
	for _, h := range hints {
		fmt.Fprintf(a.err, "  %s\n", h)
	}
}

func (a *app) root() *cobra.Command {
	root := group("hanse", "The order platform that stays right when machines fail",
		a.serveCmd(), a.devCmd(), a.pspCmd(),
		a.orderCmd(), a.stockCmd(), a.paymentCmd(), a.sagaCmd(), a.kvCmd(), a.webhookCmd(), a.eventsCmd(),
		a.nodeCmd(), a.shardCmd(), a.replayCmd(), a.auditCmd(), a.benchCmd(), a.versionCmd(),
	)
	root.Long = "Hanse takes orders, holds stock and moves money on a cluster of nodes, and stays right when they fail.\n\n" +
		"Exit codes: 0 done, 1 refused, not confirmed, or a difference found, 2 usage, 3 nobody answered. What wants --yes or --confirm does\nnothing without it, says what it would do, and exits with 1; --dry-run exits with 0 when it could be done."
	root.SilenceUsage, root.SilenceErrors = true, true
	addr := os.Getenv("HANSE_ADDR")
	if addr == "" {
		addr = DefaultAddr
	}
	root.PersistentFlags().StringVar(&a.addr, "addr", addr, "addresses of nodes, separated by commas (HANSE_ADDR)")
	root.PersistentFlags().DurationVar(&a.retryFor, "retry-for", 10*time.Second, "how long to look for a node that answers")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.SetFlagErrorFunc(misused)
	root.SetHelpFunc(a.help(root.HelpFunc()))
	root.SetHelpCommand(helpCmd())
	version := root.Flags().Bool("version", false, "print the version")
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if *version {
			return a.showVersion()
		}
		return cmd.Help()
	}
	typeArgErrors(root)
	return root
}

// help shows a command's help, unless what follows the command is no part of it: hanse nope --help.
func (a *app) help(show func(*cobra.Command, []string)) func(*cobra.Command, []string) {
	return func(cmd *cobra.Command, args []string) {
		if cmd.HasSubCommands() {
			if a.misled = cmd.ValidateArgs(cmd.Flags().Args()); a.misled != nil {
				return
			}
		}
		show(cmd, args)
	}
}

// helpCmd is cobra's, but for commands that do not exist: that is a mistake and no reason to show something else.
func helpCmd() *cobra.Command {
	return &cobra.Command{Use: "help [COMMAND]", Short: "Help about any command", RunE: func(cmd *cobra.Command, args []string) error {
		about, rest, err := cmd.Root().Find(args)
		if err != nil {
			return misused(cmd, err)
		}
		if len(rest) > 0 && about.HasSubCommands() {
			return about.ValidateArgs(rest)
		}
		about.InitDefaultHelpFlag() // which cobra adds when a command runs
		return about.Help()
	}}
}

// misused is a mistake that a command's help clears up.
func misused(cmd *cobra.Command, err error) error {
	return usage("%w; see %s --help", err, cmd.CommandPath())
}

// typeArgErrors makes what a command says about its arguments a mistake on the command line: cobra's own errors have no type.
func typeArgErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err == nil {
				return nil
			}
			if !cmd.HasSubCommands() {
				return usage("%w; want %s", err, cmd.UseLine())
			}
			if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
				err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(similar, " or "))
			}
			return misused(cmd, err)
		}
	}
	for _, c := range cmd.Commands() {
		typeArgErrors(c)
	}
}

// group makes a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs, SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(commands...)
	return c
}

// client returns a client of the nodes at --addr, and of no others: a command is over before it needs to know them.
func (a *app) client() (*client.Client, error) {
	c, err := client.New(client.Config{Addrs: splitAddrs(a.addr), Pinned: true, RetryFor: a.retryFor})
	if err != nil {
		return nil, usage("--addr: %w", err)
	}
	return c, nil
}

// keyed gives a command that changes something its idempotency key: the one that --key says, or a drawn one.
func (a *app) keyed(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&a.key, "key", "", "idempotency key: the same change with it happens once; drawn unless given")
	c.PreRun = func(*cobra.Command, []string) {
		if a.key == "" {
			a.key = client.NewKey()
		}
	}
	return c
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

// page is a page of a list as JSON, as the API has it.
func page[T any](name string, rows []T, next string) map[string]any {
	if rows == nil {
		rows = []T{}
	}
	p := map[string]any{name: rows, "has_more": next != ""}
	if next != "" {
		p["next_cursor"] = next
	}
	return p
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

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return a.showVersion() }}
}

func (a *app) showVersion() error {
	v := struct {
		Version string `json:"version"`
		Commit  string `json:"commit,omitempty"`
		Go      string `json:"go"`
	}{Version: Version, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	return a.print(v, func(w io.Writer) {
		fmt.Fprintln(w, strings.TrimSpace(fmt.Sprintln("hanse", v.Version, v.Go, v.Commit)))
	})
}
