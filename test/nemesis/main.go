package main

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := start(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes: a broken promise is not a mistake of who started the run, and neither is a machine that does not do.
const (
	exitOK     = 0
	exitBroken = 1
	exitUsage  = 2
	exitFault  = 3
)

// options are the flags.
type options struct {
	minutes       float64
	nodes, atOnce int
	seed          uint64
	faults        []kind
	report, dir   string
	json, keep    bool
	rate, keyRate float64
	network       string
	provider      string
	disk          string
	// Of the process inside the namespaces: their name, and the program that was built outside.
	inside, program string
	// scenario is what is measured instead of a run under drawn faults; nil for that.
	scenario *scenario
	args     []string // as they were given
	// again is the command of a run that draws the same plan.
	again string
}

// volatile says whether nodes lose what they have not synced when they are killed: if not said otherwise, every other seed decides for it.
func (o options) volatile() bool { return o.disk == "volatile" || o.disk == "auto" && o.seed%2 == 1 }

func (o options) length() time.Duration { return time.Duration(o.minutes * float64(time.Minute)) }

// parse reads the flags.
func parse(args []string, out io.Writer) (o options, err error) {
	if len(args) > 0 && args[0] == "scenario" {
		return parseScenario(args, out)
	}
	o.args = args
	f := flag.NewFlagSet("nemesis", flag.ContinueOnError)
	f.SetOutput(out)
	f.Float64Var(&o.minutes, "minutes", 5, "time under faults")
	f.IntVar(&o.nodes, "nodes", 3, "3 or 5")
	f.IntVar(&o.atOnce, "at-once", 0, "how many nodes may be hurt at once, but for faults that hit all: 1 leaves every shard of three replicas its majority, 0 hurts all but a majority of the nodes")
	var all []string
	for _, k := range kinds {
		all = append(all, string(k.kind))
	}
	names := f.String("faults", strings.Join(all, ","), "kinds of faults, separated by commas; none for a run without")
	f.StringVar(&o.report, "report", "", "write a report to this HTML `file`")
	f.Float64Var(&o.keyRate, "key-rate", 40, "operations on keys a second")
	f.StringVar(&o.provider, "provider", "usual", "usual (slow, failing at times, silent at times) or well (at once and always), which is for measuring")
	f.StringVar(&o.disk, "disk", "auto", "volatile (a killed node loses what it has not synced, as without power), kept (as the kernel does it), or auto: every other seed")
	o.common(f)
	if err := f.Parse(args); err != nil {
		return o, err
	}
	var errs []error
	if f.NArg() > 0 {
		errs = append(errs, fmt.Errorf("what is %q? there are only flags", f.Arg(0)))
	}
	if o.nodes != 3 && o.nodes != 5 {
		errs = append(errs, fmt.Errorf("--nodes %d: want 3 or 5", o.nodes))
	}
	if o.atOnce < 0 || o.atOnce > (o.nodes-1)/2 {
		errs = append(errs, fmt.Errorf("--at-once %d: want 0 to %d, so that a majority of %d nodes is left", o.atOnce, (o.nodes-1)/2, o.nodes))
	}
	if !(o.minutes > 0 && o.minutes <= 7*24*60) {
		errs = append(errs, fmt.Errorf("--minutes %v: want more than 0, and at most a week", o.minutes))
	}
	if !(o.rate > 0 && o.rate <= 2000) || !(o.keyRate > 0 && o.keyRate <= 2000) {
		errs = append(errs, fmt.Errorf("--rate %v, --key-rate %v: want more than 0 and at most 2000", o.rate, o.keyRate))
	}
	if !slices.Contains([]string{"usual", "well"}, o.provider) {
		errs = append(errs, fmt.Errorf("--provider %q: want usual or well", o.provider))
	}
	if !slices.Contains([]string{"auto", "volatile", "kept"}, o.disk) {
		errs = append(errs, fmt.Errorf("--disk %q: want auto, volatile or kept", o.disk))
	}
	if !slices.Contains([]string{"auto", "netns", "proxy"}, o.network) {
		errs = append(errs, fmt.Errorf("--network %q: want auto, netns or proxy", o.network))
	}
	if *names != "none" {
		for name := range strings.SplitSeq(*names, ",") {
			if !slices.Contains(all, name) {
				errs = append(errs, fmt.Errorf("--faults: there is no %q; there are %s", name, strings.Join(all, ", ")))
			}
			o.faults = append(o.faults, kind(name))
		}
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000) + 1
	}
	o.again = fmt.Sprintf("go run ./test/nemesis --seed %d", o.seed)
	f.Visit(func(f *flag.Flag) {
		if !slices.Contains([]string{"seed", "report", "dir", "keep", "json", "program", "inside"}, f.Name) {
			o.again += " --" + f.Name + " " + f.Value.String()
		}
	})
	return o, errors.Join(errs...)
}

// common defines the flags that all runs have.
func (o *options) common(f *flag.FlagSet) {
	f.Uint64Var(&o.seed, "seed", 0, "decides what is drawn; 0 draws one")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	f.StringVar(&o.dir, "dir", "", "empty `directory` for data and logs; a temporary one by default")
	f.BoolVar(&o.keep, "keep", false, "keep data and logs; after a failure logs are kept anyway")
	f.Float64Var(&o.rate, "rate", 50, "orders a second")
	f.StringVar(&o.network, "network", "auto", "netns (namespaces, needs root), proxy (loopback), or auto")
	f.StringVar(&o.inside, "inside", "", "for this program's own use: it runs in these namespaces")
	f.StringVar(&o.program, "program", "", "a hanse binary; it is built by default")
}

// start runs the program, and returns its exit code.
func start(ctx context.Context, args []string, out, errOut io.Writer) int {
	o, err := parse(args, errOut)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintln(errOut, err)
		return exitUsage
	}
	passed, err := prepare(ctx, o, out, errOut)
	switch {
	case err != nil:
		fmt.Fprintln(errOut, "nemesis:", err)
		return exitFault
	case !passed:
		return exitBroken
	}
	return exitOK
}

// prepare makes directory, program and network, and runs inside them.
func prepare(ctx context.Context, o options, out, errOut io.Writer) (passed bool, err error) {
	log := func(format string, args ...any) { fmt.Fprintf(errOut, format+"\n", args...) }
	if o.inside != "" {
		return inNetwork(ctx, o, &netnsNetwork{base: o.inside, nodes: o.nodes}, out, log)
	}
	if err := o.makeDir(); err != nil {
		return false, err
	}
	defer func() {
		if keep := o.keep || !passed && ctx.Err() == nil; !keep {
			err = errors.Join(err, os.RemoveAll(o.dir))
			return
		}
		if !o.keep {
			err = errors.Join(err, keepLogs(o.dir))
		}
		if kept := strings.Replace(o.dir, runPrefix, keptPrefix, 1); kept != o.dir && os.Rename(o.dir, kept) == nil {
			o.dir = kept
		}
		log("data and logs are in %s", o.dir)
	}()
	if o.program == "" {
		o.program = filepath.Join(o.dir, "hanse")
		build := exec.CommandContext(ctx, "go", "build", "-o", o.program, "hanse/cmd/hanse")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return false, fmt.Errorf("build hanse: %w: %s", err, out)
		}
	}
	if o.network != "proxy" {
		why := namespacesWork(ctx)
		if why == nil {
			return outside(ctx, o, out, errOut)
		}
		if o.network == "netns" {
			return false, fmt.Errorf("no network namespaces: %w", why)
		}
		log("no network namespaces (%v): nodes are behind a proxy on loopback", why)
	}
	network, err := newProxyNetwork(o.nodes)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, network.close()) }()
	return inNetwork(ctx, o, network, out, log)
}

// Temporary directories of runs are called after the process, so that the next run can tell those of dead ones. What is to be kept gets
// another name, for nobody to remove.
const (
	runPrefix  = "hanse-nemesis-run-"
	keptPrefix = "hanse-nemesis-kept-"
)

// makeDir makes the run's directory, which is empty then, and removes what dead runs have left.
func (o *options) makeDir() (err error) {
	if o.dir == "" {
		leftovers, _ := filepath.Glob(filepath.Join(os.TempDir(), runPrefix+"*")) // the pattern is well formed
		for _, dir := range leftovers {
			if pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), runPrefix), "-"); dead(pid) {
				_ = os.RemoveAll(dir) // somebody else's cannot be removed, and does not disturb
			}
		}
		if o.dir, err = os.MkdirTemp("", fmt.Sprintf("%s%d-*", runPrefix, os.Getpid())); err != nil {
			return fmt.Errorf("make a temporary directory: %w", err)
		}
		return nil
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	entries, err := os.ReadDir(o.dir)
	if err == nil && len(entries) > 0 { // it is removed at the end
		err = fmt.Errorf("--dir %s is not empty", o.dir)
	}
	return err
}

// dead reports whether a number is that of a process that no longer lives.
func dead(pid string) bool {
	n, err := strconv.Atoi(pid)
	return err == nil && n > 1 && errors.Is(syscall.Kill(n, 0), syscall.ESRCH)
}

// outside makes the namespaces, runs this program in that of the clients, and removes them whatever happens. Two processes do what one
// could not: a thread belongs to one namespace, and who runs inside cannot remove the ground it stands on.
func outside(ctx context.Context, o options, out, errOut io.Writer) (passed bool, err error) {
	if err := removeNamespaces(ctx, leftover); err != nil {
		return false, fmt.Errorf("remove what a dead run has left: %w", err)
	}
	base := fmt.Sprintf("%s%d", namespacePrefix, os.Getpid())
	defer func() {
		// Not ctx: it has ended when the run was interrupted.
		err = errors.Join(err, removeNamespaces(context.WithoutCancel(ctx), func(name string) bool { return strings.HasPrefix(name, base+"-") }))
	}()
	if err := makeNamespaces(ctx, base, o.nodes); err != nil {
		return false, fmt.Errorf("make network namespaces: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return false, fmt.Errorf("find this program: %w", err)
	}
	n := &netnsNetwork{base: base, nodes: o.nodes}
	argv := append(append(n.prefix(clientsHost), self), o.args...)
	// What comes last counts: what was decided here goes behind what was asked for.
	argv = append(argv, "--inside", base, "--program", o.program, "--dir", o.dir, "--seed", strconv.FormatUint(o.seed, 10))
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, errOut
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	switch err := newSpawner().start(cmd); {
	case err != nil:
		return false, fmt.Errorf("start inside the namespaces: %w", err)
	}
	err = cmd.Wait()
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case ended && exit.ExitCode() == exitBroken:
		return false, nil
	}
	return false, fmt.Errorf("inside the namespaces: %w", err)
}

// inNetwork runs and reports.
func inNetwork(ctx context.Context, o options, n network, out io.Writer, log func(string, ...any)) (bool, error) {
	r := &runner{cfg: o, network: n, program: o.program, dir: o.dir, log: log, skipped: make(map[kind]string)}
	r.result = result{
		Revision: revision(o.program), Again: o.again, Seed: o.seed, Nodes: o.nodes, Minutes: o.minutes, Rate: o.rate, Network: "loopback behind a proxy",
		Disk:    "what a killed node has written stays",
		Started: time.Now().UTC().Format("2006-01-02 15:04 MST"),
	}
	if o.inside != "" {
		r.result.Network = "network namespaces, iptables"
	}
	if o.scenario != nil {
		return r.measureScenario(ctx, out)
	}
	if o.volatile() {
		r.result.Disk = "a killed node loses what it has not synced"
	}
	log("seed %d, %d nodes, %v minutes, %v orders/s; %s; %s", o.seed, o.nodes, o.minutes, o.rate, r.result.Network, r.result.Disk)
	if err := r.run(ctx); err != nil {
		return false, err
	}
	res := &r.result
	if len(r.skipped) > 0 {
		res.Skipped = make(map[string]string)
		for k, why := range r.skipped {
			res.Skipped[string(k)] = why
		}
	}
	res.Passed = !slices.ContainsFunc(res.Checks, func(c check) bool { return !c.Passed })
	if o.report != "" {
		if err := writeReport(o.report, res); err != nil {
			return false, err
		}
		log("report: %s", o.report)
	}
	if o.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return res.Passed, e.Encode(res)
	}
	summarize(out, res)
	return res.Passed, nil
}

// revision is the commit that the program under test was built from, if it knows it.
func revision(program string) string {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return "" // a program without it is no less a program
	}
	rev, changed := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = " with changes"
		}
	}
	return rev + changed
}

// printChecks prints what was found of each promise.
func printChecks(w io.Writer, checks []check) {
	for _, c := range checks {
		word := "ok    "
		if !c.Passed {
			word = "FAILED"
		}
		fmt.Fprintf(w, "  %s  %s (%s)\n", word, c.Claim, c.Looked)
		for _, f := range c.Failures {
			fmt.Fprintf(w, "          %s\n", strings.ReplaceAll(f, "\n", "\n          "))
		}
	}
}

// summarize prints a result for people.
func summarize(w io.Writer, r *result) {
	fmt.Fprintf(w, "\n%d orders, %d operations on keys, %d faults, %d elections\n\n", r.Orders, r.KeyOps, len(r.Faults), r.Elections)
	printChecks(w, r.Checks)
	a := r.Availability
	fmt.Fprintf(w, "\nOrders answered within %v: %.3f %% of %d, %.3f %% of %d with no fault near\n", inTime, 100*a.Overall, a.Sent, 100*a.Calm, a.CalmSent)
	fmt.Fprintf(w, "Latency p50 %.0f ms, p99 %.0f ms, longest %.0f ms (no fault near: p50 %.0f ms, p99 %.0f ms); longest time without an answer %.0f ms\n",
		a.P50, a.P99, a.Max, a.CalmP50, a.CalmP99, a.LongestMS)
	if len(r.Stalls) > 0 {
		fmt.Fprintf(w, "The machine had no processor for this program %d times: the figures say little about the cluster then.\n", len(r.Stalls))
	}
	fmt.Fprintf(w, "\nShare of orders answered in time while a fault was near:\n")
	for _, f := range r.Faults {
		fmt.Fprintf(w, "  %6.1f–%5.1f s, whole at %5.1f s  %7.3f %% of %4d  %s %s %s\n", f.Began, f.Ended, f.Whole, 100*share(f.InTime, f.Sent), f.Sent, f.Kind, names(f.Nodes), f.Text)
	}
	for _, k := range kinds {
		if why, ok := r.Skipped[string(k.kind)]; ok {
			fmt.Fprintf(w, "Not injected: %s, for %s\n", k.kind, why)
		}
	}
	verdict := "Every promise was kept."
	if !r.Passed {
		verdict = "A promise was BROKEN."
	}
	fmt.Fprintf(w, "\n%s Again: %s\n", verdict, r.Again)
}
