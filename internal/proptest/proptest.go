// Package proptest is for property tests that have to reach something: random histories are worth little when none of them comes where it
// gets difficult, and a fixed number of them may miss a rare thing by bad luck alone.
package proptest

import (
	"testing"

	"pgregory.net/rapid"
)

// maxRounds bounds the search: what a round misses one time in a hundred, all of them miss never.
const maxRounds = 30

// Reach checks the property as [rapid.Check] does, and again with other histories until none is missing. What is missing after 30 rounds
// fails the test.
func Reach(t *testing.T, missing func() []string, property func(*rapid.T)) {
	t.Helper()
	for range maxRounds {
		rapid.Check(t, property)
		if t.Failed() || len(missing()) == 0 {
			return
		}
	}
	t.Errorf("%d rounds of histories had none of %q: the test does not reach it", maxRounds, missing())
}

// Unseen returns those of names that were not counted.
func Unseen(seen map[string]int, names ...string) (unseen []string) {
	for _, name := range names {
		if seen[name] == 0 {
			unseen = append(unseen, name)
		}
	}
	return unseen
}
