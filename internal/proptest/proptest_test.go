package proptest

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestReachGoesOnUntilNothingIsMissing(t *testing.T) {
	histories, rounds := 0, 0
	missing := func() []string {
		rounds++
		if rounds < 3 {
			return []string{"rare"}
		}
		return nil
	}
	Reach(t, missing, func(*rapid.T) { histories++ })
	if rounds != 3 || histories < 3 {
		t.Errorf("%d rounds with %d histories, want 3 with some each", rounds, histories)
	}
}

func TestUnseen(t *testing.T) {
	if got := Unseen(map[string]int{"a": 2, "b": 0}, "a", "b", "c"); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("Unseen = %v, want b and c", got)
	}
}
