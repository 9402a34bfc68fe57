package sim

// Caught says how a deliberate bug was found.
type Caught struct {
	Mutant *Mutant
	// Seeds is how many seeds it took, 0 when none of those that were tried found it.
	Seeds   int
	Failure *Failure
}

// Hunt plays seeds from first on, at most seeds of them, with a deliberate bug until a checker finds it.
func Hunt(m *Mutant, first uint64, seeds int) Caught {
	for i := range seeds {
		if r := Run(Draw(first+uint64(i), m.Nodes), m, nil); r.Failure != nil {
			return Caught{m, i + 1, r.Failure}
		}
	}
	return Caught{Mutant: m}
}
