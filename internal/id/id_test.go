package id

import (
	"testing"

	"hanse/internal/slot"
)

func TestNewAndParse(t *testing.T) {
	s := New(Order, 12182, 1_700_000_000_123, 42)
	if got, err := Parse(Order, s); err != nil || got != 12182 {
		t.Errorf("Parse(%q) = %d, %v, want slot 12182", s, got, err)
	}
	if got := Millis(s); got != 1_700_000_000_123 {
		t.Errorf("Millis(%q) = %d", s, got)
	}
	if later := New(Order, 0, 1_700_000_000_124, 0); later <= s {
		t.Errorf("IDs do not sort by time: %q made after %q", later, s)
	}
	if p := Sibling(Payment, s); p != "pay_"+s[4:] {
		t.Errorf("Sibling = %q", p)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(New(Order, 1, 2, 3))
	f.Add("ord_")
	f.Fuzz(func(t *testing.T, s string) {
		sl, err := Parse(Order, s)
		if err == nil && (sl >= slot.Count || len(s) != 30) {
			t.Errorf("Parse(%q) = %d", s, sl)
		}
	})
}
