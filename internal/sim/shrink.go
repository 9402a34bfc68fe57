package sim

import "slices"

// Shrink removes from a failing plan the faults that its failure does not need: one kind after the other is switched
// off, and stays off when the run still fails by the same checker. What is left is seldom the smallest plan, but short.
func Shrink(p Plan, m *Mutant, checker string) (smaller Plan, removed []Fault) {
	for again := true; again; {
		again = false
		for f := range faults {
			if !p.On[f] {
				continue
			}
			if r := Run(p.Without(f), m, nil); r.Failure != nil && r.Failure.Checker == checker {
				p = p.Without(f)
				removed = append(removed, f)
				again = true
			}
		}
	}
	slices.Sort(removed)
	return p, removed
}
