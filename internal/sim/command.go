package sim

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
)

// storyLines is how much of a failing run's story is printed.
const storyLines = 40

// options are the command line.
type options struct {
	seed, first    uint64
	seeds          int
	minutes        float64
	workers, nodes int
	json, trace    bool
	noShrink       bool
	mutant         string
	without        string
	worker, hunt   bool
}

// Main is the program hanse-sim. It returns the exit code: 0 when all runs kept every promise, 1 when one did not, 2 when the
// command line makes no sense.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("hanse-sim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Uint64Var(&o.seed, "seed", 0, "play this seed alone and tell its story")
	flags.Uint64Var(&o.first, "first", 0, "first of the seeds to play; 0 for fresh ones")
	flags.IntVar(&o.seeds, "seeds", 0, "how many seeds to play; 0 for as many as the time allows")
	flags.Float64Var(&o.minutes, "minutes", 0, "how long to play; 0 for no bound")
	flags.IntVar(&o.workers, "workers", runtime.NumCPU(), "processes that play seeds side by side")
	flags.IntVar(&o.nodes, "nodes", 0, "nodes of each cluster; 0 lets the seed decide")
	flags.BoolVar(&o.json, "json", false, "print the summary as JSON")
	flags.BoolVar(&o.trace, "trace", false, "with -seed: print every step")
	flags.BoolVar(&o.noShrink, "no-shrink", false, "do not look for the faults that a failure needs")
	flags.StringVar(&o.mutant, "mutant", "", "play with this deliberate bug; \"list\" lists them")
	flags.StringVar(&o.without, "without", "", "faults to leave out, separated by commas")
	flags.BoolVar(&o.hunt, "hunt", false, "play every deliberate bug until it is found, at most -seeds seeds each, and print the table")
	flags.BoolVar(&o.worker, "worker", false, "play the seeds that come on standard input (used by the program itself)")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	mutant, err := mutantByName(o.mutant)
	if err == nil && o.mutant == "list" {
		for _, m := range Mutants() {
			fmt.Fprintf(stdout, "%-32s %s\n", m.Name, m.Bug)
		}
		return 0
	}
	var off []Fault
	if err == nil {
		off, err = faultsByName(o.without)
	}
	if err != nil || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "hanse-sim:", errors.Join(err, unexpected(flags.Args())))
		return 2
	}
	// Runs leave much garbage and little else: collect less often.
	debug.SetGCPercent(400)
	draw := func(seed uint64) Plan { return Draw(seed, o.nodes).Without(off...) }
	switch {
	case o.worker:
		return work(stdin, stdout, draw, mutant)
	case o.hunt:
		return hunt(stdout, stderr, &o)
	case o.seed != 0:
		return playOne(stdout, draw(o.seed), mutant, &o)
	}
	return playMany(ctx, stdout, stderr, draw, mutant, &o)
}

func unexpected(args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("unexpected arguments %v", args)
}

func faultsByName(list string) (off []Fault, err error) {
	if list == "" {
		return nil, nil
	}
next:
	for name := range strings.SplitSeq(list, ",") {
		for f := range faults {
			if f.String() == name {
				off = append(off, f)
				continue next
			}
		}
		return nil, fmt.Errorf("there is no fault %q", name)
	}
	return off, nil
}

// hunt prints the table of docs/simulator.md: which checker finds which deliberate bug, and after how many seeds. What the checkers
// said goes to notes.
func hunt(out, notes io.Writer, o *options) int {
	code := 0
	fmt.Fprintln(out, "| mutant | the bug | seeds | found by |\n|---|---|---|---|")
	for _, m := range Mutants() {
		if o.mutant != "" && m.Name != o.mutant {
			continue
		}
		c := Hunt(m, max(o.first, 1), cmp.Or(o.seeds, 100))
		if c.Failure == nil {
			fmt.Fprintf(out, "| `%s` | %s | – | not found |\n", m.Name, m.Bug)
			code = 1
			continue
		}
		message, _, _ := strings.Cut(c.Failure.Message, "\n")
		fmt.Fprintf(out, "| `%s` | %s | %d | %s |\n", m.Name, m.Bug, c.Seeds, c.Failure.Checker)
		fmt.Fprintf(notes, "%s: %s: %s\n", m.Name, c.Failure.Checker, message)
	}
	return code
}

// playOne plays a seed and explains what happened.
func playOne(out io.Writer, p Plan, m *Mutant, o *options) int {
	fmt.Fprintf(out, "seed %d: %d nodes, %d clients, layout %v, revision %s, with\n%s", p.Seed, p.Nodes, p.Clients, p.Layout, revision(), p.Faults())
	var trace func(string)
	if o.trace {
		buffered := bufio.NewWriter(out)
		defer func() { _ = buffered.Flush() }() // standard output is gone: nobody is there to be told
		trace = func(line string) { fmt.Fprintln(buffered, line) }
	}
	r := Run(p, m, trace)
	fmt.Fprintf(out, "%.1f s of virtual time, %d events, %d orders, trace hash %016x\n", r.VirtualSeconds, r.Events, r.Orders, r.Hash)
	if r.Failure == nil {
		if again := Run(p, m, nil); again.Hash != r.Hash {
			fmt.Fprintf(out, "FAILED: determinism: the same seed gave trace hash %016x when played again\n", again.Hash)
			return 1
		}
		fmt.Fprintln(out, "every promise was kept")
		return 0
	}
	explain(out, r, m, o)
	return 1
}

// explain prints a failure: how to replay it, what happened, which faults it needs.
func explain(out io.Writer, r *Result, m *Mutant, o *options) {
	p := r.Plan
	fmt.Fprintf(out, "FAILED: %v\n", r.Failure)
	replay := fmt.Sprintf("go run ./cmd/hanse-sim -seed %d", p.Seed)
	if o.nodes > 0 {
		replay += fmt.Sprintf(" -nodes %d", o.nodes)
	}
	if m != nil {
		replay += " -mutant " + m.Name
	}
	without := o.without
	if !o.noShrink {
		smaller, removed := Shrink(p, m, r.Failure.Checker)
		names := make([]string, 0, len(removed)+1)
		if without != "" {
			names = append(names, without)
		}
		for _, f := range removed {
			names = append(names, f.String())
		}
		without = strings.Join(names, ",")
		r = Run(smaller, m, nil)
		fmt.Fprintf(out, "It needs no more than these faults:\n%s", smaller.Faults())
	}
	if without != "" {
		replay += " -without " + without
	}
	fmt.Fprintf(out, "What happened, at last:\n")
	for _, line := range r.Story[max(0, len(r.Story)-storyLines):] {
		fmt.Fprintln(out, "  "+line)
	}
	fmt.Fprintf(out, "Replay it (revision %s):\n  %s\n", revision(), replay)
}

// revision is the commit that the program was built from. "go run" notes none: then it is that of the working directory.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) > 12 {
				return s.Value[:12]
			}
		}
	}
	head, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(head))
}

// outcome is a worker's answer to a seed.
type outcome struct {
	Seed           uint64   `json:"seed"`
	Failure        *Failure `json:"failure,omitempty"`
	VirtualSeconds float64  `json:"virtual_seconds"`
	Orders         int      `json:"orders"`
	Events         int      `json:"events"`
	Probes         []int    `json:"probes"`
}

// repeatEvery is how many seeds lie between two that are played twice, to compare the traces.
const repeatEvery = 10

// play plays a seed for a batch.
func play(p Plan, m *Mutant) outcome {
	r := Run(p, m, nil)
	if r.Failure == nil && p.Seed%repeatEvery == 0 {
		if again := Run(p, m, nil); again.Hash != r.Hash {
			r.Failure = &Failure{Seed: p.Seed, Checker: "determinism", Message: fmt.Sprintf("trace hashes %016x and %016x", r.Hash, again.Hash)}
		}
	}
	return outcome{p.Seed, r.Failure, r.VirtualSeconds, r.Orders, r.Events, r.Probes[:]}
}

// work is the life of a worker: seeds in, outcomes out, one a line.
func work(in io.Reader, out io.Writer, draw func(uint64) Plan, m *Mutant) int {
	lines := bufio.NewScanner(in)
	encoder := json.NewEncoder(out)
	for lines.Scan() {
		seed, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			return 2
		}
		if err := encoder.Encode(play(draw(seed), m)); err != nil {
			return 2
		}
	}
	return 0
}

// Summary is what a batch of seeds came to.
type Summary struct {
	Seeds          int            `json:"seeds"`
	First          uint64         `json:"first"`
	Failures       []*Failure     `json:"failures"`
	VirtualSeconds float64        `json:"virtual_seconds"`
	SeedsPerMinute float64        `json:"seeds_per_minute"`
	Orders         int            `json:"orders"`
	Events         int            `json:"events"`
	Probes         map[string]int `json:"probes"`
	Revision       string         `json:"revision"`
}

// maxFailures ends a batch: more would tell nothing new.
const maxFailures = 20

// coverageSeeds is in how many seeds every rare situation has to come up.
const coverageSeeds = 2000

// playMany plays seeds in worker processes: the generator that Raft draws from is one for a process.
func playMany(ctx context.Context, stdout, stderr io.Writer, draw func(uint64) Plan, m *Mutant, o *options) int {
	if o.seeds == 0 && o.minutes == 0 {
		o.minutes = 1
	}
	if o.first == 0 {
		o.first = uint64(time.Now().UnixNano())%1_000_000_000_000 + 1
	}
	start := time.Now()
	if o.minutes > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(o.minutes*float64(time.Minute)))
		defer cancel()
	}
	s := &Summary{First: o.first, Failures: []*Failure{}, Probes: make(map[string]int), Revision: revision()}
	for _, name := range probeNames {
		s.Probes[name] = 0
	}
	var mu sync.Mutex
	next := 0
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil || o.seeds > 0 && next >= o.seeds || len(s.Failures) >= maxFailures {
			return 0, false
		}
		next++
		return o.first + uint64(next-1), true
	}
	lastLine := start
	note := func(out *outcome) {
		mu.Lock()
		defer mu.Unlock()
		s.Seeds++
		s.VirtualSeconds += out.VirtualSeconds
		s.Orders += out.Orders
		s.Events += out.Events
		for i, n := range out.Probes {
			s.Probes[probeNames[i]] += n
		}
		s.SeedsPerMinute = float64(s.Seeds) / time.Since(start).Minutes()
		if out.Failure != nil {
			s.Failures = append(s.Failures, out.Failure)
			fmt.Fprintf(stderr, "FAILED: %v\n", out.Failure)
		}
		if time.Since(lastLine) > 10*time.Second {
			lastLine = time.Now()
			fmt.Fprintf(stderr, "%d seeds, %.0f a minute, %.1f virtual hours, %d failures\n", s.Seeds, s.SeedsPerMinute, s.VirtualSeconds/3600, len(s.Failures))
		}
	}
	errs := make([]error, o.workers)
	var group sync.WaitGroup
	for i := range o.workers {
		group.Go(func() { errs[i] = manage(o, take, note, stderr) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(stderr, "hanse-sim:", err)
		return 2
	}
	if m == nil && o.nodes == 0 && o.without == "" {
		s.Failures = append(s.Failures, s.uncovered()...)
	}
	s.print(stdout, o.json)
	if len(s.Failures) == 0 {
		return 0
	}
	if !o.json && s.Failures[0].Seed != 0 {
		p := draw(s.Failures[0].Seed)
		if r := Run(p, m, nil); r.Failure != nil {
			explain(stdout, r, m, o)
		} else { // it was not the same when played again
			fmt.Fprintf(stdout, "Replay it (revision %s):\n  go run ./cmd/hanse-sim -seed %d\n", s.Revision, p.Seed)
		}
	}
	return 1
}

// uncovered returns the rare situations that a large batch has never reached. That a history is too long need not happen.
func (s *Summary) uncovered() (missed []*Failure) {
	if s.Seeds < coverageSeeds {
		return nil
	}
	for p, name := range probeNames {
		if s.Probes[name] == 0 && probe(p) != probeUndecided {
			missed = append(missed, &Failure{Checker: "coverage", Message: fmt.Sprintf("never in %d seeds: %s", s.Seeds, name)})
		}
	}
	return missed
}

// manage runs a worker process and feeds it.
func manage(o *options, take func() (uint64, bool), note func(*outcome), stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.Command(self, "-worker", "-nodes", strconv.Itoa(o.nodes), "-mutant", o.mutant, "-without", o.without)
	c.Stderr = stderr
	c.Env = append(os.Environ(), "GOMAXPROCS=2") // a second thread collects the garbage
	in, err := c.StdinPipe()
	if err != nil {
		return err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	answers := json.NewDecoder(out)
	for err == nil {
		seed, more := take()
		if !more {
			break
		}
		var a outcome
		if _, err = fmt.Fprintln(in, seed); err == nil {
			err = answers.Decode(&a)
		}
		if err != nil {
			err = fmt.Errorf("worker died over seed %d: %w", seed, err)
			break
		}
		note(&a)
	}
	return errors.Join(err, in.Close(), c.Wait())
}

func (s *Summary) print(out io.Writer, asJSON bool) {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		_ = e.Encode(s) // standard output is gone: nobody is there to be told
		return
	}
	fmt.Fprintf(out, "%d seeds from %d: %d failed; %.1f virtual hours, %.0f seeds a minute, %d orders, revision %s\n",
		s.Seeds, s.First, len(s.Failures), s.VirtualSeconds/3600, s.SeedsPerMinute, s.Orders, s.Revision)
	for _, f := range s.Failures {
		fmt.Fprintln(out, "FAILED:", f)
	}
	for _, name := range probeNames {
		if n := s.Probes[name]; n > 0 {
			fmt.Fprintf(out, "%10d  %s\n", n, name)
		}
	}
	for _, name := range probeNames {
		if s.Probes[name] == 0 {
			fmt.Fprintf(out, "     never  %s\n", name)
		}
	}
}
