package sim

import (
	"crypto/rand"
)

// Result is what came of a run.
type Result struct {
	Plan    Plan
	Failure *Failure
	// Hash is of the trace: two runs of a plan have the same.
	Hash uint64
	// VirtualSeconds is how long the run lasted, Events how much happened, Orders how many were placed.
	VirtualSeconds float64
	Events, Orders int
	Probes         [probes]int
	Story          []string
}

// Run plays a plan. It takes over the process's source of randomness, from which Raft draws its election timeouts, so
// only one run at a time can be under way. Trace, when set, is given every step.
func Run(p Plan, m *Mutant, trace func(string)) *Result {
	reader := rand.Reader
	rand.Reader = newRandom(p.Seed, "elections")
	defer func() { rand.Reader = reader }()
	w := newWorld(p, m, trace)
	w.run()
	return &Result{
		Plan: p, Failure: w.failure, Hash: w.hash, VirtualSeconds: w.seconds(), Events: w.events, Orders: len(w.orders),
		Probes: w.probes, Story: w.story,
	}
}
