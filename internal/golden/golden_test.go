package golden

import "testing"

func TestDifference(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"a\nb\n", "a\nb\n", 0},
		{"a\nb\n", "a\nc\n", 2},
		{"a", "a\nb", 2},
		{"a\nb", "a", 2},
		{"a\n", "a", 2},
		{"", "a", 1},
	} {
		if got := difference(test.a, test.b); got != test.want {
			t.Errorf("difference(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
